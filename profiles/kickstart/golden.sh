# shellcheck shell=bash
# Finishes a golden image from inside it: nothing stays that one machine made for itself, and
# cloud-init is ready to make a node of a copy.

begin_step golden "The packages are on the disk, but it must not be used."

finish_golden() {
    remove_installer_nics
    require_kernel_arguments
    take_seeds
    list_packages
    forget_the_machine
    relabel
}

# cloud-init looks for a volume labelled CIDATA, and for nothing on a network.
take_seeds() {
    local folder=/etc/cloud/cloud.cfg.d
    mkdir -p "$NF_SYSROOT$folder"
    printf '# Made by nodeforge, for the seeds that it makes.\ndatasource_list: [NoCloud, None]\n' \
        >"$NF_SYSROOT$folder/90-nodeforge.cfg"
    printf '%s\n' "$folder/90-nodeforge.cfg" >>"$NF_RUN/unpacked"
}

# What is on the list need not be fetched when a node is made (profiles/media/seed.sh).
list_packages() {
    mkdir -p "$NF_SYSROOT/var/lib/nodeforge"
    cat "$NF_RUN/packages" >"$NF_SYSROOT/var/lib/nodeforge/packages"
    printf '%s\n' /var/lib/nodeforge /var/lib/nodeforge/packages >>"$NF_RUN/unpacked"
}

# Empty, systemd makes a machine-id and keeps it (machine-id(5)); sshd-keygen makes host keys.
forget_the_machine() {
    : >"$NF_SYSROOT/etc/machine-id"
    rm -f "$NF_SYSROOT"/etc/ssh/ssh_host_* "$NF_SYSROOT/var/lib/systemd/random-seed" \
        "$NF_SYSROOT/var/lib/NetworkManager/secret_key" "$NF_SYSROOT"/var/lib/NetworkManager/*.lease
    rm -rf "$NF_SYSROOT"/var/cache/dnf/*
}
