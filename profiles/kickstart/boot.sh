# shellcheck shell=bash
# Starts the installed system from inside the installer, for a node that is installed already.
#
# parts_of and type_of are those of disk.sh.
# shellcheck disable=SC2154

# Starts the installed system without changing the disk: by the firmware's next-boot variable
# on UEFI, by kexec on BIOS, where the network may well come first in the boot order for ever.
boot_from_disk() { # DISK ROOT-PARTITION
    begin_step boot-from-disk
    decided "boot $1"
    say "nodeforge: $NF_NODE is installed on $1, and the kernel line has no newer grant: starting it from disk.
$GIVE_A_GRANT"
    report "$NF_STEP" started "starting the installed system from $1"
    if [[ -d $NF_SYSROOT/sys/firmware/efi ]]; then
        set_boot_next "$1" && restart
    else
        load_installed_kernel "$1" && systemctl kexec && wait_for_the_end
    fi
    say "nodeforge: the installed system of $NF_NODE could not be started from here. Put the disk before the
network in the firmware's boot order, or stop serving the installer to this node.
The machine restarts in 15 minutes; nothing has been changed."
    sleep 900
    restart
}

restart() {
    systemctl reboot
    wait_for_the_end
}

# The shutdown ends this script; the installer must not go on meanwhile.
wait_for_the_end() {
    while :; do
        sleep 60
    done
}

# UEFI 2.9 §3.1.2: BootNext is tried once, before BootOrder.
set_boot_next() { # DISK
    local part uuid number
    for part in ${parts_of[$1]}; do
        [[ ${type_of[$part]} == vfat ]] || continue
        uuid=$(blkid -p -s PART_ENTRY_UUID -o value "$NF_SYSROOT/dev/$part") || continue
        number=$(efibootmgr -v |
            sed -n "/^Boot[0-9A-F]\{4\}.*GPT,${uuid,,},/{s/^Boot\(....\).*/\1/p;q}")
        [[ -n $number ]] && efibootmgr --quiet --bootnext "$number" && return
    done
    return 1
}

# Loads the kernel that GRUB would start: grubenv's saved_entry and its file under
# loader/entries, whose options name grubenv's kernelopts (EL8, grub2's BLS patches).
load_installed_kernel() { # DISK
    local part at=$NF_RUN/boot status=1
    mkdir -p "$at"
    for part in ${parts_of[$1]}; do
        [[ ${type_of[$part]} == xfs && -z ${label_of[$part]} ]] || continue
        mount -t xfs -o ro,norecovery,nouuid "$NF_SYSROOT/dev/$part" "$at" || continue
        [[ -r $at/grub2/grubenv ]] && load_kernel_of "$at" && status=0
        umount "$at"
        ((status == 0)) && break
    done
    return "$status"
}

load_kernel_of() { # MOUNTED /boot
    local entry kernel initrd options default
    entry=$1/loader/entries/$(grub_value "$1/grub2/grubenv" saved_entry).conf
    [[ -r $entry ]] || return 1
    kernel=$(entry_value "$entry" linux)
    initrd=$(entry_value "$entry" initrd)
    default=$(grub_value "$1/grub2/grubenv" kernelopts)
    options=$(entry_value "$entry" options)
    options=${options//\$kernelopts/$default}
    options=${options//\$tuned_params/}
    [[ $options == *root=* && $options != *'$'* ]] || return 1
    kexec --load "$1/${kernel#/}" --initrd="$1/${initrd#/}" --command-line="$options"
}

grub_value() { # FILE NAME
    sed -n "/^$2=/{s/^$2=//p;q}" "$1"
}

entry_value() { # FILE KEY: the rest of the line, of initrd only the first word
    local value
    value=$(sed -n "/^$2[[:space:]]/{s/^$2[[:space:]]*//p;q}" "$1")
    if [[ $2 == initrd ]]; then value=${value%% *}; fi
    printf '%s\n' "$value"
}
