# shellcheck shell=bash
# Makes a node of a cloud image: what the kickstart does elsewhere, in the same order and with
# the same scripts, which stand before this one (lib.sh, fetch.sh, unpack.sh, target.sh).
#
# cloud-init starts it at each boot. When it is done it leaves a mark and restarts the machine;
# then the node comes up as an installed one does, and cloud-init has nothing more to say.
#
# SC2154: the values of the node come from node.sh.
# shellcheck disable=SC2154

NF_SEEDED=$NF_SYSROOT/var/lib/nodeforge/seeded
NF_KEPT_FILES=$NF_SYSROOT/var/lib/nodeforge
NF_DNF_RETRIES=${NF_DNF_RETRIES:-5}

seed_node() {
    if [[ -e $NF_SEEDED ]]; then return; fi
    mkdir -p "$NF_RUN/embedded"
    begin_step fetch "Nothing has been changed."
    get_everything
    begin_step packages "Packages may be missing; this node must not be used."
    take_repositories
    install_packages
    begin_step filesystems
    make_kept_filesystems
    begin_step unpack
    unpack_everything
    begin_step target
    finish_target
    enable_services
    leave_the_network
    begin_step finish
    mark_as_seeded
    systemctl --no-block reboot
}

# The repositories of the plan alone: with the rest of the overlay in place, packages would put
# their own files aside or over it.
take_repositories() {
    local archive
    for archive in $(archive_names); do
        if names_in "$archive" | grep -q '^etc/yum\.repos\.d/.'; then
            tar --extract --gzip --file="$NF_RUN/archives/$archive" --directory="$NF_TARGET" \
                --no-same-owner etc/yum.repos.d
        fi
    done
}

install_packages() {
    local package
    local -a modules packages without=()
    read -ra modules <<<"$NF_MODULES"
    read -ra packages <<<"$NF_PACKAGES"
    for package in $NF_WITHOUT; do
        without+=("--exclude=$package")
    done
    if are_there "${packages[@]}" "${without[@]/#--exclude=/-}"; then return; fi
    for package in "${modules[@]}"; do
        by_dnf module disable "$package"
    done
    by_dnf install "${without[@]}" "${packages[@]}"
}

# A golden image brings the list of what it was installed with and without (golden.sh).
are_there() { # PACKAGE…
    local package
    [[ -r $NF_KEPT_FILES/packages ]] || return 1
    for package in "$@"; do
        grep -Fxq -e "$package" "$NF_KEPT_FILES/packages" || return 1
    done
}

# The network may take a while, and a mirror may be busy.
by_dnf() {
    local try
    for ((try = 1; try <= NF_DNF_RETRIES; try++)); do
        if dnf --assumeyes "$@"; then return; fi
        sleep "$((try * NF_PAUSE))"
    done
    refuse "dnf $1 failed $NF_DNF_RETRIES times; its log is /var/log/dnf.log." \
        "Look at the network and at the repositories in /etc/yum.repos.d."
}

# A filesystem with the label of the plan is taken as it is. Without one, as an image has one
# disk, it is a file on it.
make_kept_filesystems() {
    local kept label size_mib mount source options
    for kept in $NF_KEPT; do
        IFS=: read -r label size_mib mount <<<"$kept"
        mkdir -p "$NF_SYSROOT$mount"
        source=LABEL=$label options=defaults,nofail
        if [[ ! -e $NF_SYSROOT/dev/disk/by-label/$label ]]; then
            source=$NF_KEPT_FILES/$label.xfs options=loop,nofail
            make_filesystem "$source" "$size_mib" "$label"
        fi
        grep -q " $mount " "$NF_SYSROOT/etc/fstab" ||
            printf '%s %s xfs %s 0 0\n' "$source" "$mount" "$options" >>"$NF_SYSROOT/etc/fstab"
        grep -q " $mount " "$NF_SYSROOT/proc/mounts" || mount "$mount"
    done
}

make_filesystem() { # FILE MiB LABEL
    if [[ -e $1 ]]; then return; fi
    mkdir -p "$NF_KEPT_FILES"
    truncate --size "$2M" "$1.part"
    mkfs.xfs -q -L "$3" "$1.part" || refuse "The filesystem $3 of $2 MiB cannot be made in $1.part."
    mv "$1.part" "$1"
}

enable_services() {
    local service
    for service in ${NF_SERVICES//,/ }; do
        systemctl enable "$service"
    done
}

# From the next boot on the NICs are the overlay's alone: cloud-init's profiles, and the names it
# gave them, would be a second owner of each.
leave_the_network() {
    local folder=$NF_SYSROOT/etc/cloud/cloud.cfg.d
    rm -f "$NF_SYSROOT"/etc/NetworkManager/system-connections/cloud-init-*.nmconnection \
        "$NF_SYSROOT/etc/udev/rules.d/70-persistent-net.rules" \
        "$NF_SYSROOT"/etc/systemd/network/*-cloud-init-*
    mkdir -p "$folder"
    printf '# The keyfiles of nodeforge configure the network.\nnetwork: {config: disabled}\npreserve_hostname: true\n' \
        >"$folder/99-nodeforge.cfg"
}

mark_as_seeded() {
    mkdir -p "${NF_SEEDED%/*}"
    rm -rf "$NF_RUN/archives"
    printf '%s\n' "$NF_INSTANCE" >"$NF_SEEDED.new"
    sync
    mv "$NF_SEEDED.new" "$NF_SEEDED"
    sync
    report "$NF_STEP" ended "made of a cloud image"
}

seed_node
