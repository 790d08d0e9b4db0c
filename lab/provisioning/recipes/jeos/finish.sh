#!/bin/sh
# finish.sh TREE KIT OUT: from the unpacked packages in TREE to OUT/{disk.raw,vmlinuz,initrd-tree,packages}.
set -eu
TREE=$1 KIT=$2 OUT=$3 ROOT=$3/root
. "$KIT/finish-lib.sh"
kernel=$(only_kernel)
PATH=$PATH:/usr/sbin:/sbin

mkdir -p "$ROOT/usr/bin" "$ROOT/usr/lib" "$ROOT/usr/lib64"
for folder in dev proc sys run tmp mnt root etc var/log etc/dropbear; do mkdir -p "$ROOT/$folder"; done
ln -s usr/bin "$ROOT/bin"
ln -s usr/bin "$ROOT/sbin"
ln -s bin "$ROOT/usr/sbin"
ln -s usr/lib "$ROOT/lib"
ln -s usr/lib64 "$ROOT/lib64"
ln -s /run "$ROOT/var/run"
ln -s /proc/self/mounts "$ROOT/etc/mtab"

cp "$TREE/bin/busybox" "$ROOT/usr/bin/busybox"
chroot "$ROOT" /bin/busybox --install -s /usr/bin
copy_program /usr/sbin/dropbear /usr/bin/dropbearkey /usr/lib/dropbear/dropbearconvert /usr/sbin/qemu-ga
mv "$ROOT/usr/lib/dropbear/dropbearconvert" "$ROOT/usr/bin/dropbearconvert"
# busybox's date sets whole seconds only, and a guest that is restored would wait for the next one.
rm "$ROOT/usr/bin/date"
for place in /bin/date /usr/bin/date; do
    [ ! -f "$TREE$place" ] || { copy_program "$place"; break; }
done
# Where it lies differs between releases of Debian.
for place in /sbin/ethtool /usr/sbin/ethtool; do
    [ ! -f "$TREE$place" ] || { copy_program "$place"; break; }
done

# Whole families of drivers that no virtual machine of the lab has.
moddir=$TREE/lib/modules/$kernel/kernel
for family in drivers/comedi drivers/infiniband drivers/media drivers/soundwire drivers/target drivers/vfio \
    net/ceph net/rds net/smc net/tipc fs/ceph fs/nfsd fs/smb fs/ocfs2 fs/gfs2 fs/dlm sound; do
    rm -rf "${moddir:?}/$family"
done
chroot "$TREE" /sbin/depmod -a "$kernel"
mkdir -p "$ROOT/usr/lib/modules"
cp -a "$TREE/lib/modules/$kernel" "$ROOT/usr/lib/modules/"

cp -a "$KIT/guest/." "$ROOT/"
cp -a "$KIT/files/." "$ROOT/"
chown -R 0:0 "$ROOT"
chmod 700 "$ROOT/root"
chmod 600 "$ROOT/etc/shadow"
chmod 1777 "$ROOT/tmp"

make_initrd "$kernel" "$TREE/bin/busybox"
cp "$TREE/boot/vmlinuz-$kernel" "$OUT/vmlinuz"
make_disk "$ROOT" "$LAB_DISK_MIB"
rm -rf "$ROOT"
for package in busybox-static coreutils dropbear-bin ethtool qemu-guest-agent "linux-image-$kernel"; do
    log=$TREE/usr/share/doc/$package
    # A package whose documentation is a link to its source package's says its version there.
    zcat "$log"/changelog.Debian*.gz 2>/dev/null | sed -n "1s/^[^ ]* (\([^)]*\)).*/$package \1/p"
done >"$OUT/packages"
