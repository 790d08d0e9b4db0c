#!/bin/sh
# finish.sh TREE KIT OUT: from the unpacked packages in TREE to OUT/{disk.raw,vmlinuz,initrd-tree,packages}.
set -eu
TREE=$1 KIT=$2 OUT=$3 ROOT=$3/root
. "$KIT/finish-lib.sh"
. "$KIT/finish-host.sh"
kernel=$(only_kernel)
PATH=$PATH:/usr/sbin:/sbin

for package in busybox-static openssh-server libvirt-daemon dnsmasq-base qemu-system-x86 qemu-utils "linux-image-$kernel"; do
    package_version "$package"
done >"$OUT/packages"

cp "$TREE/boot/vmlinuz-$kernel" "$OUT/vmlinuz"
chroot "$TREE" /bin/busybox depmod -b / "$kernel" 2>/dev/null || chroot "$TREE" /sbin/depmod -a "$kernel"
make_initrd "$kernel" "$TREE/bin/busybox"

host_tree
# Drivers of libvirt that need udev, or serve other hypervisors; QEMU's for displays, sound and other networks.
cd "$ROOT"
rm -rf usr/share/dpkg usr/share/bug usr/share/lintian usr/share/zoneinfo usr/share/gcc* usr/share/gdb usr/share/apport \
    usr/lib/ipxe usr/share/i18n usr/lib/x86_64-linux-gnu/gconv
rm -f usr/lib/x86_64-linux-gnu/libvirt/connection-driver/libvirt_driver_nodedev.so \
    usr/lib/x86_64-linux-gnu/libvirt/connection-driver/libvirt_driver_interface.so \
    usr/lib/x86_64-linux-gnu/libvirt/connection-driver/libvirt_driver_nwfilter.so \
    usr/bin/qemu-system-i386 usr/share/qemu/*.dtb usr/share/qemu/openbios* usr/share/qemu/opensbi* \
    usr/share/qemu/skiboot* usr/share/qemu/slof* usr/share/qemu/s390* usr/share/qemu/palcode*
cd - >/dev/null
host_modules "$kernel"
cp -a "$KIT/host/." "$KIT/files/." "$ROOT/"
mkdir -p "$ROOT/etc/libvirt/qemu/networks/autostart" "$ROOT/etc/libvirt/storage/autostart" \
    "$ROOT/var/lib/libvirt/images" "$ROOT/var/lib/libvirt/qemu" "$ROOT/var/lib/libvirt/dnsmasq" "$ROOT/var/lib/misc" \
    "$ROOT/var/cache/libvirt/qemu" "$ROOT/var/log/libvirt/qemu"
ln -s ../default.xml "$ROOT/etc/libvirt/qemu/networks/autostart/default.xml"
ln -s ../default.xml "$ROOT/etc/libvirt/storage/autostart/default.xml"
chmod 711 "$ROOT/var/lib/libvirt/images"
# The emulator has no vme, which every one of libvirt's x86 models demands: without this it knows no model of a processor.
sed -i /vme/d "$ROOT/usr/share/libvirt/cpu_map/x86_486.xml"

# What proves KVM: the host's kernel, and a RAM disk of one program.
cp "$OUT/vmlinuz" "$ROOT/usr/lib/interop-lab/guest-kernel"
mkdir -p "$OUT/guest/bin" "$OUT/guest/dev"
cp "$ROOT/bin/busybox" "$OUT/guest/bin/busybox"
mv "$ROOT/usr/lib/interop-lab/guest-init" "$OUT/guest/init"
chmod 755 "$OUT/guest/init"
(cd "$OUT/guest" && find . | "$ROOT/bin/busybox" cpio -o -H newc -R 0:0 2>/dev/null) >"$ROOT/usr/lib/interop-lab/guest-initrd"
rm -rf "$OUT/guest"

chown -R 0:0 "$ROOT"
chown -R 102:103 "$ROOT/var/lib/libvirt/qemu" "$ROOT/var/cache/libvirt/qemu"
chmod 600 "$ROOT/etc/shadow"
make_disk "$ROOT" "$LAB_DISK_MIB"
rm -rf "$ROOT"
