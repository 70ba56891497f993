#!/bin/sh
# Prints what `nodeforge generate hw` needs to know of the box it runs on; changes nothing.
# As root: dmidecode tells the DIMMs only to root, and lsblk the filesystems.
#
#   nodeforge generate hw --script | ssh root@box sh > box.txt
#   nodeforge generate hw --from box.txt

export LC_ALL=C
PATH=$PATH:/usr/sbin:/sbin

say() { # COMMAND…: its output below a heading; nothing where the box lacks it
    printf '==> %s <==\n' "$*"
    command -v "$1" >/dev/null 2>&1 && "$@" 2>/dev/null
    printf '\n'
}

links() { # FOLDER: where its links lead
    [ -d "$1" ] || return 0
    say ls -l "$1"
}

say lspci -Dvmmnn
printf '==> NUMA nodes <==\n'
grep -H . /sys/bus/pci/devices/*/numa_node 2>/dev/null
say lsblk -J -b -O
say ip -d -j addr
say lscpu -J
say dmidecode -t 0 -t 1 -t 17
say cat /proc/meminfo
say cat /proc/cmdline
printf '==> firmware <==\n'
ls -d /sys/firmware/* 2>/dev/null
links /sys/block
links /sys/class/nvme
links /sys/class/net
links /sys/class/infiniband
links /sys/class/iommu
links /dev/disk/by-path
exit 0
