"""Commands about images: `lab images list`, `build`, `verify`, `prune`."""

from __future__ import annotations

from pathlib import Path

import click

from lab.commands import options
from lab.commands.shared import console, print_json, read_inventory, show, tables
from lab.errors import ExitCode


@click.command("list")
@options.as_json
def list_images(json: bool) -> ExitCode:
    """List the images in the cache of this machine."""
    from lab.provisioning import images as cache

    rows = [
        {
            "image": entry.name,
            "digest": entry.digest if json else entry.digest[:19],
            "made": entry.made if json else entry.made[:16].replace("T", " "),
            "MiB": entry.disk_bytes >> 20,
            "current": entry.current,
            "origin": entry.origin if json else entry.origin.removeprefix(f"built on {entry.made} from the "),
        }
        for entry in cache.listing()
    ]
    return show(rows, json=json)


@click.command("build")
@click.argument("recipe", help="A name such as debian-12; `lab images build` with a wrong one lists them.")
def build_image(recipe: str) -> ExitCode:
    """Build the image of a recipe, or say where it lies already."""
    from lab.inventory.models import BuildSource
    from lab.provisioning import images as cache

    screen = console()
    image = cache.resolve(BuildSource(build=recipe), progress=lambda line: screen.print(line, markup=False))
    screen.print(f"{image.name} {image.digest}\n{image.disk}", markup=False, highlight=False, soft_wrap=True)
    return ExitCode.AS_EXPECTED


@click.command("verify")
@options.inventory
@options.as_json
def verify_images(inventory: Path, json: bool) -> ExitCode:
    """Compare the cached images of an inventory with their digests.

    Reads every byte. Ends with 3 when one is damaged.
    """
    from lab.errors import ImageError
    from lab.provisioning import images as cache

    rows = []
    damaged = False
    for entry in read_inventory(inventory).guests.values():
        try:
            image = cache.verify(entry.image) if entry.missing() is None else None
            found = f"whole, {image.digest}" if image else "not in the cache"
        except ImageError as reason:
            damaged, found = True, str(reason)
        rows.append({"guest": entry.name, "image": found})
    show(rows, json=json)
    return ExitCode.LAB_AT_FAULT if damaged else ExitCode.AS_EXPECTED


@click.command("prune")
@click.argument(
    "inventories", nargs=-1, required=True, type=options.FOLDER, help="All that you use: what none of them needs goes."
)
@click.option("--dry-run", is_flag=True, help="Only say what would go.")
@options.as_json
def prune_images(inventories: tuple[Path, ...], dry_run: bool, json: bool) -> ExitCode:
    """Remove from the cache what no inventory needs any more.

    Images whose recipe has changed or that no guest is made from, and saved machines of earlier versions of an
    image, a profile or a driver. Nothing that a machine which exists stands on is touched.
    """
    from lab.provisioning import prune

    found = prune.find([read_inventory(path) for path in inventories])
    if not dry_run:
        prune.remove(found)
    if json:
        print_json(prune.as_json(found, dry_run=dry_run))
    else:
        tables().pruned(console(), found, dry_run=dry_run)
    return ExitCode.AS_EXPECTED


images = click.Group(
    "images",
    help="List, build, verify and prune the images that guests start from.",
    commands=[list_images, build_image, verify_images, prune_images],
)
