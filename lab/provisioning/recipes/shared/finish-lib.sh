# Functions for the finish.sh of a recipe. Sourced; runs outside the tree, as its (perhaps only apparent) root.
# Uses: TREE (what the packages left), KIT (the recipe's files), OUT (what the lab takes away).

say() { echo "lab: $*" >&2; }

# only_kernel: prints the one kernel release in the tree
only_kernel() {
    set -- "$TREE"/lib/modules/*
    [ $# = 1 ] && [ -d "$1/kernel" ] || { say "expected one kernel, found: $*"; exit 1; }
    echo "${1##*/}"
}

# module_closure MODDIR MODULE...: prints the modules' files (relative to MODDIR), dependencies first, each once.
# A module that the kernel has built in, or does not have at all, is left out (a recipe serves several kernels).
module_closure() {
    moddir=$1; shift
    for module in "$@"; do
        pattern=$(echo "$module" | sed 's/[-_]/[-_]/g')
        line=$(grep -E "/$pattern\.ko(\.[a-z]+)?:" "$moddir/modules.dep") || continue
        reversed=
        for needed in ${line#*:}; do reversed="$needed $reversed"; done
        for file in $reversed "${line%%:*}"; do echo "$file"; done
    done | awk '!seen[$0]++'
}

# plain_module FROM TO: copies a module without its compression, so that the guest need not undo it
plain_module() {
    case $1 in
        *.xz) xz -dc "$1" >"${2%.xz}" ;;
        *.zst) zstd -qdc "$1" >"${2%.zst}" ;;
        *) cp "$1" "$2" ;;
    esac
}

# make_initrd KERNEL BUSYBOX: writes OUT/initrd-tree, which the lab packs; one list of modules per kind of root disk
make_initrd() {
    moddir=$TREE/lib/modules/$1 tree=$OUT/initrd-tree
    mkdir -p "$tree/bin" "$tree/modules" "$tree/dev" "$tree/proc" "$tree/sys" "$tree/root" "$tree/run"
    cp "$2" "$tree/bin/busybox"
    ln -s busybox "$tree/bin/sh"
    install -m 755 "$KIT/initrd/init" "$tree/init"
    for kind in virtio nvme sata pvscsi virtio-scsi ide xen; do
        case $kind in
            virtio) modules="virtio_pci virtio_blk virtio_mmio" ;;
            nvme) modules="nvme" ;;
            sata) modules="ahci sd_mod" ;;
            pvscsi) modules="vmw_pvscsi sd_mod" ;;
            virtio-scsi) modules="virtio_pci virtio_scsi sd_mod" ;;
            ide) modules="ata_piix sd_mod" ;;
            xen) modules="xen_blkfront" ;;
        esac
        # shellcheck disable=SC2086 # a list of words
        module_closure "$moddir" $modules ext4 crc32c_generic >"$OUT/closure"
        : >"$tree/modules/$kind"
        while read -r file; do
            name=${file##*/}; name=${name%%.ko*}.ko
            [ -e "$tree/modules/$name" ] || plain_module "$moddir/$file" "$tree/modules/${file##*/}"
            echo "$name" >>"$tree/modules/$kind"
        done <"$OUT/closure"
    done
    rm -f "$OUT/closure"
}

# copy_program PATH...: copies programs of the tree into ROOT, with the libraries that they are linked to
copy_program() {
    for program in "$@"; do
        mkdir -p "$ROOT${program%/*}"
        cp -L "$TREE$program" "$ROOT$program"
        chroot "$TREE" /lib64/ld-linux-x86-64.so.2 --list "$program" | grep -o '/[^ ]*' >"$OUT/libraries"
        while read -r library; do
            mkdir -p "$ROOT${library%/*}"
            [ -e "$ROOT$library" ] || cp -L "$TREE$library" "$ROOT$library"
        done <"$OUT/libraries"
    done
    rm -f "$OUT/libraries"
}

# make_disk ROOT MIB: writes OUT/disk.raw from a folder, without mounting anything.
# The features are named here because they differ between releases of e2fsprogs and an older guest must read them.
make_disk() {
    rm -f "$OUT/disk.raw"
    PATH=$PATH:/usr/sbin:/sbin mke2fs -q -F -t ext4 -b 4096 -L lab-root \
        -O none,has_journal,ext_attr,resize_inode,dir_index,filetype,extent,64bit,flex_bg,sparse_super,large_file,huge_file,dir_nlink,extra_isize,metadata_csum \
        -E lazy_itable_init=1,lazy_journal_init=1,nodiscard,root_owner=0:0 -m 1 -d "$1" "$OUT/disk.raw" "$2M"
    # Without an initrd the kernel opens these before anything is mounted. In a user namespace mknod is forbidden.
    printf 'cd /dev\nmknod console c 5 1\nmknod null c 1 3\n' >"$OUT/nodes"
    PATH=$PATH:/usr/sbin:/sbin debugfs -w -f "$OUT/nodes" "$OUT/disk.raw" >/dev/null 2>&1
    rm -f "$OUT/nodes"
}
