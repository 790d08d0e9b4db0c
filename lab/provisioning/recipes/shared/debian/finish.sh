#!/bin/sh
# finish.sh TREE KIT OUT: from the installed system in TREE to OUT/{disk.raw,vmlinuz,initrd-tree,packages}.
set -eu
TREE=$1 KIT=$2 OUT=$3 ROOT=$3/root
. "$KIT/finish-lib.sh"
kernel=$(only_kernel)

chroot "$TREE" dpkg-query -W -f '${Package} ${Version}\n' >"$OUT/packages"
cp "$TREE/boot/vmlinuz-$kernel" "$OUT/vmlinuz"
make_initrd "$kernel" "$TREE/bin/busybox"

# The tree without what the build put there; folders that are mounted now are made anew.
mkdir -p "$ROOT"
for entry in "$TREE"/* "$TREE"/.[!.]*; do
    case ${entry##*/} in dev | proc | sys | run | tmp | lab-kit | lab-out | '.[!.]*') continue ;; esac
    mv "$entry" "$ROOT/"
done
for folder in dev proc sys run tmp; do mkdir "$ROOT/$folder"; done
chmod 1777 "$ROOT/tmp"
cp -a "$KIT/guest/." "$KIT/files/." "$ROOT/"
chown -R 0:0 "$ROOT/usr/lib/interop-lab" "$ROOT/etc/systemd" "$ROOT/etc/ssh" "$ROOT/etc/modprobe.d"

# Nothing that two machines must not share, nothing of the machine that built it.
rm -f "$ROOT"/etc/ssh/ssh_host_* "$ROOT"/etc/machine-id "$ROOT"/var/lib/dbus/machine-id "$ROOT"/var/lib/systemd/random-seed
rm -f "$ROOT"/etc/apt/apt.conf.d/99mmdebstrap "$ROOT"/etc/apt/sources.list "$ROOT"/etc/apt/sources.list.d/* \
    "$ROOT"/etc/dpkg/dpkg.cfg.d/99mmdebstrap
rm -rf "$ROOT"/var/lib/apt/lists/* "$ROOT"/var/cache/apt/* "$ROOT"/var/cache/debconf/*-old "$ROOT"/var/log/* \
    "$ROOT"/usr/share/doc/* "$ROOT"/usr/share/man/* "$ROOT"/usr/share/info/* "$ROOT"/usr/share/locale/* \
    "$ROOT"/boot/initrd* "$ROOT"/usr/share/lintian
: >"$ROOT/etc/machine-id"
: >"$ROOT/etc/fstab"
echo localhost >"$ROOT/etc/hostname"
printf '127.0.0.1 localhost\n::1 localhost\n' >"$ROOT/etc/hosts"
rm -f "$ROOT/etc/resolv.conf"
echo 'nameserver 10.0.2.3' >"$ROOT/etc/resolv.conf"
mkdir -p "$ROOT/root/.ssh"
chmod 700 "$ROOT/root" "$ROOT/root/.ssh"

units=$ROOT/etc/systemd/system
enable() { mkdir -p "$units/$2.wants"; ln -sf "/lib/systemd/system/$1" "$units/$2.wants/$1"; }
mask() { for unit in "$@"; do rm -f "$units"/*.wants/"$unit"; ln -sf /dev/null "$units/$unit"; done; }
ln -sf /lib/systemd/system/multi-user.target "$units/default.target"
enable systemd-networkd.service multi-user.target
enable ssh.service multi-user.target
ln -sf /etc/systemd/system/lab-ready.service "$units/multi-user.target.wants/lab-ready.service"
rm -f "$units"/network-online.target.wants/* "$units"/getty.target.wants/getty@tty1.service
# Timers and clean-ups of a machine that lives for months: they would wake up in the middle of a measurement.
mask apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer e2scrub_reap.service fstrim.timer \
    systemd-tmpfiles-clean.timer ssh.socket sshd-keygen.service remote-fs.target
# What a guest of one disk and one administrator does not use. Each unit costs half a second under emulation.
mask kmod-static-nodes.service modprobe@.service systemd-binfmt.service proc-sys-fs-binfmt_misc.automount \
    sys-fs-fuse-connections.mount sys-kernel-config.mount sys-kernel-tracing.mount sys-kernel-debug.mount \
    dev-mqueue.mount dev-hugepages.mount systemd-pstore.service systemd-update-utmp.service \
    systemd-update-utmp-runlevel.service systemd-ask-password-wall.path systemd-ask-password-console.path \
    systemd-firstboot.service systemd-sysusers.service systemd-repart.service systemd-machine-id-commit.service \
    systemd-journal-flush.service systemd-hwdb-update.service systemd-journal-catalog-update.service \
    systemd-update-done.service ldconfig.service systemd-boot-random-seed.service systemd-initctl.socket \
    systemd-pcrphase.service systemd-pcrphase-sysinit.service systemd-pcrmachine.service \
    systemd-tpm2-setup.service systemd-tpm2-setup-early.service systemd-boot-clear-sysfail.service \
    systemd-hibernate-clear.service systemd-rfkill.socket systemd-networkd-varlink.socket systemd-creds.socket \
    systemd-mountfsd.socket systemd-nsresourced.socket systemd-userdbd.socket systemd-sysext.socket systemd-pcrextend.socket \
    systemd-pcrlock.socket systemd-udev-load-credentials.service systemd-networkd-persistent-storage.service
# SSH first; the power button, the clock and the login prompt after it.
rm -f "$units"/sysinit.target.wants/systemd-timesyncd.service
sed 's/^Before=.*/Before=shutdown.target/; s/^After=.*/After=ssh.service/' \
    "$ROOT/usr/lib/systemd/system/systemd-timesyncd.service" >"$units/systemd-timesyncd.service"
mkdir -p "$units/multi-user.target.wants"
ln -sf ../systemd-timesyncd.service "$units/multi-user.target.wants/systemd-timesyncd.service"
mkdir -p "$ROOT/etc/systemd/system-generators"
for generator in cryptsetup debug gpt-auto hibernate-resume integritysetup rc-local run system-update sysv veritysetup \
    bless-boot tpm2 ssh; do
    ln -sf /dev/null "$ROOT/etc/systemd/system-generators/systemd-$generator-generator"
done
# systemd does its first-boot and after-update work when /usr is newer than these.
chroot "$ROOT" systemd-hwdb update 2>/dev/null || true
chroot "$ROOT" ldconfig
touch "$ROOT/usr"
touch "$ROOT/etc/.updated" "$ROOT/var/.updated"

make_disk "$ROOT" "$LAB_DISK_MIB"
rm -rf "$ROOT"
