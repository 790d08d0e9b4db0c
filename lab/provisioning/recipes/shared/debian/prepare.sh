#!/bin/sh
# prepare.sh TREE: after the essential packages were unpacked, before the others are installed.
set -eu
mkdir -p "$1/etc/dpkg/dpkg.cfg.d" "$1/etc/initramfs-tools" "$1/etc/kernel"
# The lab makes its own small initial RAM disk, from outside.
echo update_initramfs=no >"$1/etc/initramfs-tools/update-initramfs.conf"
# What no guest of the lab reads, and drivers for hardware that no virtual machine has: most of the kernel package.
cat >"$1/etc/dpkg/dpkg.cfg.d/interop-lab" <<'END'
path-exclude=/usr/share/doc/*
path-exclude=/usr/share/man/*
path-exclude=/usr/share/info/*
path-exclude=/usr/share/locale/*
path-exclude=/usr/share/lintian/*
path-exclude=/lib/modules/*/kernel/sound/*
path-exclude=/lib/modules/*/kernel/drivers/gpu/*
path-exclude=/lib/modules/*/kernel/drivers/media/*
path-exclude=/lib/modules/*/kernel/drivers/infiniband/*
path-exclude=/lib/modules/*/kernel/drivers/isdn/*
path-exclude=/lib/modules/*/kernel/drivers/iio/*
path-exclude=/lib/modules/*/kernel/drivers/comedi/*
path-exclude=/lib/modules/*/kernel/drivers/staging/*
path-exclude=/lib/modules/*/kernel/drivers/mmc/*
path-exclude=/lib/modules/*/kernel/drivers/bluetooth/*
path-exclude=/lib/modules/*/kernel/drivers/net/wireless/*
path-exclude=/lib/modules/*/kernel/drivers/net/can/*
path-exclude=/lib/modules/*/kernel/drivers/net/ethernet/*
path-include=/lib/modules/*/kernel/drivers/net/ethernet/intel/e1000*
path-include=/lib/modules/*/kernel/drivers/net/ethernet/intel/igb*
path-include=/lib/modules/*/kernel/drivers/net/ethernet/realtek/8139*
path-exclude=/lib/modules/*/kernel/net/wireless/*
path-exclude=/lib/modules/*/kernel/net/mac80211/*
path-exclude=/lib/modules/*/kernel/net/bluetooth/*
path-exclude=/lib/modules/*/kernel/net/can/*
path-exclude=/usr/lib/modules/*/kernel/sound/*
path-exclude=/usr/lib/modules/*/kernel/drivers/gpu/*
path-exclude=/usr/lib/modules/*/kernel/drivers/media/*
path-exclude=/usr/lib/modules/*/kernel/drivers/infiniband/*
path-exclude=/usr/lib/modules/*/kernel/drivers/isdn/*
path-exclude=/usr/lib/modules/*/kernel/drivers/iio/*
path-exclude=/usr/lib/modules/*/kernel/drivers/comedi/*
path-exclude=/usr/lib/modules/*/kernel/drivers/staging/*
path-exclude=/usr/lib/modules/*/kernel/drivers/mmc/*
path-exclude=/usr/lib/modules/*/kernel/drivers/bluetooth/*
path-exclude=/usr/lib/modules/*/kernel/drivers/net/wireless/*
path-exclude=/usr/lib/modules/*/kernel/drivers/net/can/*
path-exclude=/usr/lib/modules/*/kernel/drivers/net/ethernet/*
path-include=/usr/lib/modules/*/kernel/drivers/net/ethernet/intel/e1000*
path-include=/usr/lib/modules/*/kernel/drivers/net/ethernet/intel/igb*
path-include=/usr/lib/modules/*/kernel/drivers/net/ethernet/realtek/8139*
path-exclude=/usr/lib/modules/*/kernel/net/wireless/*
path-exclude=/usr/lib/modules/*/kernel/net/mac80211/*
path-exclude=/usr/lib/modules/*/kernel/net/bluetooth/*
path-exclude=/usr/lib/modules/*/kernel/net/can/*
END
