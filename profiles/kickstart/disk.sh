# shellcheck shell=bash
# Chooses the disk to install on, or refuses, and writes the storage part of the kickstart.
#
# Reads only /sys, /proc, udev's database and the disks themselves; writes only below
# $NF_RUN and the file that the kickstart includes. What it decides, in this order:
#
#   boot     an installation is complete and the kernel line has no newer grant
#   refuse   no disk or several, a disk that is not ours to take, kept data at risk
#   keep     DAOS's kept filesystems are all there: everything else is made anew
#   fresh    no kept filesystem is there, or a grant says to wipe them

begin_step disk "Nothing on any disk has been touched."
NF_INCLUDE=${NF_INCLUDE:-$NF_SYSROOT/tmp/nodeforge-disk.ks}
ROOT_LABEL=NFROOT
LOG_LABEL=NFLOG
# Where the number of the grant stands on an installed node's root filesystem.
GRANT_FILE=var/lib/nodeforge/grant
GIVE_A_GRANT="To give this disk up, start the installer once with nodeforge.reinstall=<number> on the
kernel line; the number must be higher than any used on this node before."

declare -A udev_of=() excluded_for=() type_of=() label_of=() parts_of=() kept_part=()
disks=()

sysfs() { # PATH UNDER /sys/block
    local value=
    read -r value 2>/dev/null <"$NF_SYSROOT/sys/block/$1" || true
    printf '%s\n' "$value"
}

bytes_of() {
    local sectors
    sectors=$(sysfs "$1/size")
    echo "$((${sectors:-0} * 512))"
}

# Where the disk hangs: /devices/pci0000:00/0000:00:1f.2/ata1/host0/…
device_path() {
    readlink -f "$NF_SYSROOT/sys/block/$1"
}

bus_of() {
    local path
    path=$(device_path "$1")
    case $path in
        */usb[0-9]*) echo usb ;;
        */nvme/*) echo nvme ;;
        */virtio[0-9]*/host[0-9]*) echo scsi ;;
        */virtio[0-9]*) echo virtio ;;
        */ata[0-9]*) echo sata ;;
        */end_device-*) echo sas ;;
        */mmc_host/*) echo mmc ;;
        *) echo scsi ;;
    esac
}

udev() { # DISK KEY: one property, or nothing
    local line
    while read -r line; do
        [[ $line == "$2="* ]] && printf '%s\n' "${line#*=}" && return
    done <<<"${udev_of[$1]}"
    return 0
}

# Reads what is on a disk or partition itself, not what udev remembers.
probe() { # NAME
    local line out status=0
    out=$(blkid -p -o export "$NF_SYSROOT/dev/$1" 2>/dev/null) || status=$?
    case $status in
        0 | 2) ;;
        8) out="TYPE=several-signatures" ;;
        *) out="TYPE=unreadable" ;;
    esac
    type_of[$1]='' label_of[$1]=''
    while read -r line; do
        case $line in
            TYPE=*) type_of[$1]=${line#*=} ;;
            LABEL=*) label_of[$1]=${line#*=} ;;
        esac
    done <<<"$out"
    if [[ $(head -c 8 "$NF_SYSROOT/dev/$1" 2>/dev/null | tr -d '\0' || true) == SPDKBLOB ]]; then
        type_of[$1]=daos-blob
    fi
}

scan() {
    local path name part
    for path in "$NF_SYSROOT"/sys/block/*; do
        name=${path##*/}
        # Loop, zram, CD, device-mapper, md, pmem and the like are never a disk to install on.
        [[ $name =~ ^(sd[a-z]+|vd[a-z]+|xvd[a-z]+|nvme[0-9]+n[0-9]+|mmcblk[0-9]+)$ ]] || continue
        disks+=("$name")
        udev_of[$name]=$(udevadm info --query=property --name="$name" 2>/dev/null) || true
        parts_of[$name]=
        for part in "$path/$name"*; do
            [[ -e $part/partition ]] && parts_of[$name]+="${part##*/}"$'\n'
        done
        parts_of[$name]=$(sort -V <<<"${parts_of[$name]}")
        excluded_for[$name]=$(exclusion_by_nature "$name")
        [[ -n ${excluded_for[$name]} ]] && continue
        for part in "$name" ${parts_of[$name]}; do
            probe "$part"
        done
        excluded_for[$name]=$(exclusion_by_content "$name")
    done
}

# Why a disk is out of the question whatever is on it; nothing if it is not. Such a disk is
# not even read: a data SSD belongs to DAOS.
exclusion_by_nature() { # DISK
    local address device serial
    for address in $NF_DATA_PCI; do
        [[ $(device_path "$1")/ == */"$address"/* ]] && echo "a data disk of DAOS ($address)" && return
    done
    for device in $NF_DATA_DEVICES; do
        [[ $(readlink -f "$NF_SYSROOT$device") == "$NF_SYSROOT/dev/$1" ]] &&
            echo "a data disk of DAOS ($device)" && return
    done
    for serial in "$(udev "$1" ID_SERIAL_SHORT)" "$(udev "$1" ID_SERIAL)" "$(sysfs "$1/serial")"; do
        [[ $serial == nfdata-* ]] && echo "a data disk of a lab (serial $serial)" && return
    done
    [[ $(sysfs "$1/removable") == 1 ]] && echo "removable" && return
    [[ $(sysfs "$1/ro") == 1 ]] && echo "read-only" && return
    [[ $(bytes_of "$1") == 0 ]] && echo "empty (no medium)" && return
    is_mounted "$1" && echo "in use by the installer" && return
    return 0
}

# The installer mounts nothing but its own medium before %pre has run.
is_mounted() { # DISK
    local source rest part
    while read -r source rest; do
        for part in "$1" ${parts_of[$1]}; do
            [[ $source == "/dev/$part" ]] && return 0
        done
    done <"$NF_SYSROOT/proc/mounts"
    return 1
}

exclusion_by_content() { # DISK
    local part
    for part in "$1" ${parts_of[$1]}; do
        case ${type_of[$part]} in
            iso9660) echo "an installation medium" && return ;;
            daos-blob) echo "a DAOS data disk (SPDK blob on $part)" && return ;;
            unreadable) echo "$part cannot be read" && return ;;
            mpath_member) echo "a path of a multipath disk" && return ;;
        esac
        [[ ${label_of[$part]} == OEMDRV ]] && echo "the medium with the kickstart (OEMDRV)" && return
    done
    return 0
}

link_leads_to() { # by-path|by-id NAME DISK
    [[ $(readlink -f "$NF_SYSROOT/dev/disk/$1/${2##*/}") == "$NF_SYSROOT/dev/$3" ]]
}

plain_wwn() {
    local wwn=${1,,}
    wwn=${wwn#0x} wwn=${wwn#naa.} wwn=${wwn#eui.}
    printf '%s\n' "$wwn"
}

# Prints the first condition of a rule that a disk does not meet; nothing if it meets all.
mismatch() { # DISK RULE
    local rule=$2 want have key
    want=${rule}_BY_PATH want=${!want}
    [[ -n $want ]] && ! link_leads_to by-path "$want" "$1" && echo "not at by-path/${want##*/}" && return
    want=${rule}_BY_ID want=${!want}
    [[ -n $want ]] && ! link_leads_to by-id "$want" "$1" && echo "not by-id/${want##*/}" && return
    want=${rule}_SERIAL want=${!want}
    if [[ -n $want ]]; then
        have=" "
        for key in ID_SERIAL_SHORT ID_SCSI_SERIAL ID_SERIAL; do
            have+="$(udev "$1" "$key") "
        done
        [[ $have != *" $want "* ]] && echo "serial is not $want" && return
    fi
    want=${rule}_WWN want=${!want}
    if [[ -n $want ]]; then
        have=" "
        for key in ID_WWN_WITH_EXTENSION ID_WWN; do
            have+="$(plain_wwn "$(udev "$1" "$key")") "
        done
        [[ $have != *" $(plain_wwn "$want") "* ]] && echo "WWN is not $want" && return
    fi
    want=${rule}_BUS want=${!want} have=$(bus_of "$1")
    [[ -n $want && $have != "$want" ]] && echo "bus is $have, not $want" && return
    # A stick is an install disk only for a rule that says so.
    [[ -z $want && $have == usb ]] && echo "on USB, which the rule does not name" && return
    want=${rule}_MIN_BYTES want=${!want} have=$(bytes_of "$1")
    [[ -n $want ]] && ((have < want)) && echo "smaller than $((want >> 20)) MiB" && return
    want=${rule}_MAX_BYTES want=${!want}
    [[ -n $want ]] && ((have > want)) && echo "larger than $((want >> 20)) MiB" && return
    return 0
}

# Sets `chosen` to the one disk that a rule means.
choose() { # RULE NAME-FOR-PEOPLE [DISK-TAKEN]
    local disk why matches=() seen=""
    for disk in "${disks[@]}"; do
        why=${excluded_for[$disk]}
        [[ -z $why && $disk == "${3:-}" ]] && why="taken as install disk"
        [[ -z $why ]] && why=$(mismatch "$disk" "$1")
        [[ -z $why ]] && matches+=("$disk") && why="MATCHES"
        seen+="  $(describe "$disk"): $why"$'\n'
    done
    case ${#matches[@]} in
        1) chosen=${matches[0]} ;;
        0) refuse "No disk matches the rule for the $2. The disks of this machine:
${seen:-  (none)}" "Correct the rule in the cluster file, or the machine." ;;
        *) refuse "${#matches[@]} disks match the rule for the $2; exactly one must:
$seen" "Make the rule narrower in the cluster file (by_path, by_id, serial, wwn, bus, min, max)." ;;
    esac
}

describe() { # DISK
    local serial
    serial=$(udev "$1" ID_SERIAL_SHORT)
    [[ -z $serial ]] && serial=$(udev "$1" ID_SERIAL)
    echo "$1, $(($(bytes_of "$1") >> 20)) MiB, $(bus_of "$1"), serial ${serial:-unknown}"
}

# Prints "PARTITION DISK" for each filesystem with a label, on disks that are not excluded.
labelled() { # LABEL
    local disk part
    for disk in "${disks[@]}"; do
        [[ -n ${excluded_for[$disk]} ]] && continue
        for part in "$disk" ${parts_of[$disk]}; do
            [[ ${label_of[$part]} == "$1" ]] && echo "$part $disk"
        done
    done
    return 0
}

# A grant installs again what nodeforge installed. Only nodeforge.reinstall= gives up what is
# somebody else's, or cannot be read; the boot server's nodeforge.grant= does not.
read_kernel_line() {
    local word=nodeforge.grant
    told=$(kernel_argument nodeforge.reinstall)
    grant=$(granted)
    if [[ -n $told ]]; then word=nodeforge.reinstall; fi
    if [[ -n $grant && ! $grant =~ ^[0-9]{1,18}$ ]]; then
        refuse "$word=$grant on the kernel line is not a number of at most 18 digits."
    fi
    if [[ -n $grant ]]; then grant=$((10#$grant)); fi
    wipe=$(kernel_argument nodeforge.wipe_daos)
}

# Prints the grant that an installed root filesystem holds, `none` if its installation never
# ended, `unreadable` if nobody can tell. The filesystem is not written to: not even its
# journal is replayed.
stored_grant() { # PARTITION
    local at=$NF_RUN/root text=
    mkdir -p "$at"
    if ! mount -t xfs -o ro,norecovery,nouuid "$NF_SYSROOT/dev/$1" "$at"; then
        echo unreadable
        return
    fi
    if [[ -e $at/$GRANT_FILE ]]; then
        read -r text <"$at/$GRANT_FILE" || true
        [[ $text =~ ^[0-9]{1,18}$ ]] && echo "$((10#$text))" || echo unreadable
    else
        echo none
    fi
    umount "$at"
}

# A node is installed once. Without a grant that is newer than the one on its disk, it goes
# back to what it has.
leave_an_installed_node_alone() {
    local part disk stored installed="" installed_disk="" count=0
    while read -r part disk; do
        [[ -z $part ]] && continue
        stored=$(stored_grant "$part")
        case $stored in
            none) continue ;;
            unreadable)
                [[ -n $told ]] && continue
                refuse "$disk holds an installation ($part, label $ROOT_LABEL) that cannot be read." "$GIVE_A_GRANT"
                ;;
        esac
        [[ -n $grant ]] && ((grant > stored)) && continue
        count=$((count + 1)) installed=$part installed_disk=$disk
    done <<<"$(labelled "$ROOT_LABEL")"
    case $count in
        0) ;;
        1) boot_from_disk "$installed_disk" "$installed" ;;
        *) refuse "$count disks hold a complete installation of nodeforge." "$GIVE_A_GRANT" ;;
    esac
}

kept_labels() {
    local kept
    for kept in $NF_KEPT; do
        echo "${kept%%:*}"
    done
}

# Decides `mode` (fresh or keep) from the kept filesystems that are there: all or none of the
# planned ones. Keep never becomes fresh by itself.
decide_about_kept_data() { # DISK-FOR-KEPT-DATA
    local label part disk planned wiping="" here=0 wanted=0 found=""
    [[ $wipe == 1 && -n $grant ]] && wiping=yes
    planned=" $(kept_labels | tr '\n' ' ')"
    for label in DAOSMETA DAOSDATA; do
        [[ $planned == *" $label "* ]] && wanted=$((wanted + 1))
        local here_of_label=0
        while read -r part disk; do
            [[ -z $part ]] && continue
            here_of_label=$((here_of_label + 1))
            found+="  $label on $part"$'\n'
            [[ -n $wiping && ($disk == "$1" || -z $NF_KEPT) ]] && continue
            [[ $planned == *" $label "* ]] ||
                refuse "$part holds kept DAOS data ($label), which this node's plan does not have." "$WIPE_ADVICE"
            [[ $disk == "$1" ]] ||
                refuse "$part holds kept DAOS data ($label); the plan has it on $1." \
                    "Move or erase it by hand: it is never replaced by an empty one."
            [[ ${type_of[$part]} == xfs && $part != "$disk" ]] ||
                refuse "$part is labelled $label but is not an XFS partition." "$WIPE_ADVICE"
            kept_part[$label]=$part
        done <<<"$(labelled "$label")"
        [[ -n $wiping ]] && continue
        ((here_of_label > 1)) &&
            refuse "Several filesystems are labelled $label:"$'\n'"$found" "Only a person can say which one counts."
        here=$((here + here_of_label))
    done
    mode=fresh
    [[ -n $wiping ]] && return
    ((here == 0)) && return
    ((here == wanted)) ||
        refuse "Only a part of the kept DAOS filesystems is there (planned:$planned):"$'\n'"$found" "$WIPE_ADVICE"
    mode=keep
}

# What else is on the disk must be ours, or given up.
require_a_disk_to_take() { # DISK
    local part found="" ours="" holder
    for part in "$1" ${parts_of[$1]}; do
        [[ ${label_of[$part]} == "$ROOT_LABEL" ]] && ours=yes
        case ${label_of[$part]} in
            DAOSMETA | DAOSDATA | "$LOG_LABEL") continue ;;
        esac
        [[ -n ${type_of[$part]} ]] && found+="  ${type_of[$part]} on $part${label_of[$part]:+ (${label_of[$part]})}"$'\n'
    done
    for holder in "$NF_SYSROOT/sys/block/$1"/holders/* "$NF_SYSROOT/sys/block/$1/$1"*/holders/*; do
        [[ -e $holder ]] && found+="  in use by ${holder##*/}"$'\n' && ours=
    done
    if [[ -n $found && -z $ours && -z $told ]]; then
        refuse "$(describe "$1") is the disk to install on, but something else is on it:
$found" "$GIVE_A_GRANT"
    fi
}

require_room() { # DISK NEEDED-MIB
    local have=$(($(bytes_of "$1") >> 20))
    ((have >= $2)) || refuse "$(describe "$1") is too small: the plan needs $2 MiB."
}

# The MiB of the kept filesystems together.
kept_mib() {
    local kept sum=0 rest
    for kept in $NF_KEPT; do
        rest=${kept#*:}
        sum=$((sum + ${rest%%:*}))
    done
    echo "$sum"
}

# Partitions to clear when kept ones stay, comma-separated.
others() { # DISK
    local part names=""
    for part in ${parts_of[$1]}; do
        [[ " ${kept_part[*]} " == *" $part "* ]] || names+=",$part"
    done
    echo "${names#,}"
}

# EL8's pykickstart: clearpart takes --all or --list, and a missing name there is fatal, so
# only names that were seen a moment ago are written.
write_include() {
    local kept label mib mount used=$install_disk
    if [[ $kept_disk != "$install_disk" ]]; then used+=,$kept_disk; fi
    {
        # Other disks do not even exist for anaconda.
        echo "ignoredisk --only-use=$used"
        if [[ $mode == fresh ]]; then
            echo "zerombr"
            echo "clearpart --all --drives=$used --initlabel --disklabel=gpt"
        elif [[ $used != "$install_disk" ]]; then
            echo "zerombr"
            echo "clearpart --all --drives=$install_disk --initlabel --disklabel=gpt"
        elif [[ -n $(others "$install_disk") ]]; then
            echo "clearpart --list=$(others "$install_disk")"
        else
            echo "clearpart --none"
        fi
        echo "bootloader --location=mbr --boot-drive=$install_disk --timeout=5 --append=\"$NF_KERNEL_ARGS\""
        # /boot, and what the firmware at hand wants: /boot/efi or a BIOS boot partition.
        echo "reqpart --add-boot"
        echo "part / --fstype=xfs --label=$ROOT_LABEL --ondisk=$install_disk --size=$NF_ROOT_MIB --grow"
        # Logs have a filesystem of their own: a full one must not stop the node or the raft.
        echo "part /var/log --fstype=xfs --label=$LOG_LABEL --ondisk=$install_disk --size=$NF_LOG_MIB"
        for kept in $NF_KEPT; do
            IFS=: read -r label mib mount <<<"$kept"
            # Without nosuid: daos_server_helper and the engines refuse such a place.
            if [[ $mode == keep ]]; then
                echo "part $mount --onpart=${kept_part[$label]} --noformat --fsoptions=defaults"
            else
                echo "part $mount --fstype=xfs --label=$label --ondisk=$kept_disk --size=$mib --fsoptions=defaults"
            fi
        done
    } >"$NF_INCLUDE"
}

decided() {
    printf 'nodeforge: decision: %s\n' "$1"
}

WIPE_ADVICE="To destroy that data, start the installer once with nodeforge.wipe_daos=1 and
nodeforge.reinstall=<number> on the kernel line."

choose_disk() {
    local need
    read_kernel_line
    scan
    leave_an_installed_node_alone
    if [[ $wipe == 1 && -z $grant ]]; then
        refuse "nodeforge.wipe_daos=1 needs nodeforge.reinstall=<number> beside it on the kernel line."
    fi
    choose NF_DISK "install disk"
    install_disk=$chosen kept_disk=$chosen
    # /boot and /boot/efi of reqpart, and the partition table.
    need=$((1024 + 600 + 2 + NF_ROOT_MIB + NF_LOG_MIB))
    if [[ -n $NF_META_DISK ]]; then
        choose NF_META_DISK "disk of DAOS's metadata" "$install_disk"
        kept_disk=$chosen
        require_room "$kept_disk" "$(($(kept_mib) + 2))"
    else
        need=$((need + $(kept_mib)))
    fi
    require_room "$install_disk" "$need"
    decide_about_kept_data "$kept_disk"
    require_a_disk_to_take "$install_disk"
    [[ $kept_disk == "$install_disk" ]] || require_a_disk_to_take "$kept_disk"
    decided "$mode $install_disk"
    report "$NF_STEP" ended "$mode installation on $install_disk"
}
