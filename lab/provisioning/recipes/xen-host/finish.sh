#!/bin/sh
# finish.sh TREE KIT OUT: from the unpacked packages in TREE to OUT/{disk.raw,hypervisor,vmlinuz,initrd-tree,packages}.
# OUT/vmlinuz is the dom0's kernel without its compression: unpacking under emulation would cost every start seconds.
set -eu
TREE=$1 KIT=$2 OUT=$3 ROOT=$3/root
. "$KIT/finish-lib.sh"
kernel=$(only_kernel)
PATH=$PATH:/usr/sbin:/sbin

for package in busybox-static openssh-server xen-hypervisor-4.17-amd64 xen-utils-4.17 xenstore-utils "linux-image-$kernel"; do
    log=$TREE/usr/share/doc/$package
    zcat "$log"/changelog.Debian*.gz 2>/dev/null | sed -n "1s/^[^ ]* (\([^)]*\)).*/$package \1/p"
done >"$OUT/packages"

gzip -dc "$TREE/boot/xen-4.17-amd64.gz" >"$OUT/hypervisor"
# The boot protocol of Linux/x86: setup_sects at 0x1f1, payload_offset at 0x248, payload_length at 0x24c.
image=$TREE/boot/vmlinuz-$kernel
number() { od -An -t "u$3" -j "$2" -N "$3" "$1" | tr -d ' '; }
start=$((($(number "$image" 497 1) + 1) * 512 + $(number "$image" 584 4)))
tail -c +$((start + 1)) "$image" | head -c "$(number "$image" 588 4)" | xz -dc --single-stream >"$OUT/vmlinuz"

chroot "$TREE" /bin/busybox depmod -b / "$kernel" 2>/dev/null || chroot "$TREE" /sbin/depmod -a "$kernel"
make_initrd "$kernel" "$TREE/bin/busybox"

# The tree without what the build put there, what nobody reads, and the modules that no dom0 of the lab needs.
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
modules=$ROOT/lib/modules/$kernel
# shellcheck disable=SC2046 # a list of words
module_closure "$modules" $(cat "$KIT/files/usr/lib/interop-lab/modules") ext4 crc32c_generic >"$OUT/closure"
mv "$modules" "$OUT/modules"
while read -r file; do
    mkdir -p "$modules/${file%/*}"
    cp "$OUT/modules/$file" "$modules/$file"
done <"$OUT/closure"
cp "$OUT"/modules/modules.builtin* "$OUT"/modules/modules.order "$modules/"
rm -rf "$OUT/modules" "$OUT/closure"
chroot "$ROOT" /sbin/depmod -a "$kernel"

# What a person who looks into a dom0 expects to find; Debian's own programs stay what they are.
for applet in free hexdump less nc pgrep pidof ping pkill ps sed grep awk find xargs tar gzip gunzip top vi; do
    chroot "$ROOT" /bin/busybox which "$applet" >/dev/null || ln -s /bin/busybox "$ROOT/usr/bin/$applet"
done
cp -a "$KIT/files/." "$ROOT/"
chown -R 0:0 "$ROOT"
chmod 600 "$ROOT/etc/shadow"
# The scripts of Xen's package are for every kind of disk and cost seconds a device under emulation.
make_disk "$ROOT" "$LAB_DISK_MIB"
rm -rf "$ROOT"
