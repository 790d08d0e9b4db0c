# Functions for the finish.sh of a host that the lab makes, beside those of finish-lib.sh. Sourced.

# package_version PACKAGE: prints its name and version
package_version() {
    # A package whose documentation is a link to its source package's says its version there.
    zcat "$TREE/usr/share/doc/$1"/changelog.Debian*.gz 2>/dev/null | sed -n "1s/^[^ ]* (\([^)]*\)).*/$1 \1/p"
}

# host_tree: moves the tree to ROOT without what the build put there and what nobody reads
host_tree() {
    mkdir -p "$ROOT"
    for entry in "$TREE"/*; do
        case ${entry##*/} in boot | dev | home | lab-kit | lab-out | proc | root | run | sys | tmp | var) continue ;; esac
        mv "$entry" "$ROOT/"
    done
    for folder in dev home lab mnt proc root run sys tmp var/lib var/log; do mkdir -p "$ROOT/$folder"; done
    ln -s /run "$ROOT/var/run"
    ln -s /run/lock "$ROOT/var/lock"
    chmod 700 "$ROOT/root"
    chmod 1777 "$ROOT/tmp"
    rm -rf "$ROOT"/usr/share/doc "$ROOT"/usr/share/man "$ROOT"/usr/share/info "$ROOT"/usr/share/locale \
        "$ROOT"/usr/share/perl* "$ROOT"/usr/lib/x86_64-linux-gnu/perl* "$ROOT"/usr/share/bash-completion \
        "$ROOT"/etc/cron.* "$ROOT"/etc/init.d "$ROOT"/etc/rc?.d "$ROOT"/etc/systemd "$ROOT"/lib/systemd \
        "$ROOT"/etc/ssh/ssh_host_* "$ROOT"/etc/pam.d "$ROOT"/etc/apt "$ROOT"/etc/dpkg
    # What a person who looks into a host expects to find; Debian's own programs stay what they are.
    for applet in free hexdump less nc pgrep pidof ping pkill ps sed grep awk find which xargs tar gzip gunzip top vi; do
        chroot "$ROOT" /bin/busybox which "$applet" >/dev/null || ln -s /bin/busybox "$ROOT/usr/bin/$applet"
    done
}

# host_modules KERNEL: leaves those of its modules in ROOT that the recipe names
host_modules() {
    modules=$ROOT/lib/modules/$1
    # shellcheck disable=SC2046 # a list of words
    module_closure "$modules" $(cat "$KIT/files/usr/lib/interop-lab/modules") ext4 crc32c_generic >"$OUT/closure"
    mv "$modules" "$OUT/modules"
    while read -r file; do
        mkdir -p "$modules/${file%/*}"
        cp "$OUT/modules/$file" "$modules/$file"
    done <"$OUT/closure"
    cp "$OUT"/modules/modules.builtin* "$OUT"/modules/modules.order "$modules/"
    rm -rf "$OUT/modules" "$OUT/closure"
    chroot "$ROOT" /sbin/depmod -a "$1"
}
