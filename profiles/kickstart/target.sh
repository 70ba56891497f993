# shellcheck shell=bash
# Finishes the installed system from inside it, after the overlay has been unpacked.

begin_step target "The disk has been partitioned and the packages are on it, but this node must not be used."

finish_target() {
    set_root_password
    set_owners
    remove_installer_nics
    rebuild_initramfs
    require_kernel_arguments
    relabel
}

# Through standard input: an argument could be seen by every process.
set_root_password() {
    local file=$NF_SYSROOT/root/.nodeforge-root-hash hash
    [[ -e $file ]] || return 0
    read -r hash <"$file" || true
    # EL8's libxcrypt knows neither yescrypt nor gost-yescrypt.
    [[ $hash =~ ^\$[56]\$[^:]+$ ]] || refuse "The root password's hash is not a SHA-256 or SHA-512 one."
    chpasswd --encrypted <<<"root:$hash"
    rm -f "$file"
}

# Users come with the packages, with numbers nobody can know before. chown drops set-id bits,
# which the package's own record brings back.
set_owners() {
    local package
    [[ ! -e $NF_SYSROOT$NF_TMPFILES ]] || systemd-tmpfiles --create "$NF_TMPFILES"
    for package in $NF_SETPERMS; do
        if rpm --quiet --query "$package"; then rpm --setperms "$package"; fi
    done
}

# anaconda 33.16.9.5 copies a profile of every NIC (pyanaconda/modules/network/installation.py)
# and a .link for each ifname=; beside the overlay's keyfiles NetworkManager would have two
# profiles for one NIC.
remove_installer_nics() {
    local file
    for file in "$NF_SYSROOT"/etc/sysconfig/network-scripts/{ifcfg,keys,route,route6,rule,rule6}-*; do
        [[ ! -e $file || ${file##*/} == ifcfg-lo ]] || rm -f "$file"
    done
    rm -f "$NF_SYSROOT"/etc/systemd/network/10-anaconda-ifname-*.link \
        "$NF_SYSROOT"/etc/systemd/network/71-net-ifnames-prefix-*
}

# For the kernels that are installed, not for the installer's that runs: .link files and
# modules of the overlay must be in the initramfs.
rebuild_initramfs() {
    local kernel
    for kernel in $(rpm --query --queryformat '%{VERSION}-%{RELEASE}.%{ARCH}\n' kernel-core); do
        dracut --force --kver "$kernel"
    done
}

require_kernel_arguments() {
    local argument missing
    missing=$(missing_kernel_arguments)
    [[ -n $missing ]] || return 0
    echo "adding to the boot entries: $missing"
    grubby --update-kernel=ALL --args="$missing"
    argument=$(missing_kernel_arguments)
    [[ -z $argument ]] || refuse "The boot entries lack kernel arguments of the plan: $argument"
}

# Arguments that at least one boot entry lacks.
missing_kernel_arguments() {
    local entries argument line missing=
    entries=$(grubby --info=ALL | sed -n 's/^args="\(.*\)"$/\1/p')
    [[ -n $entries ]] || entries=none
    for argument in $NF_KERNEL_ARGS; do
        while read -r line; do
            if [[ " $line " != *" $argument "* ]]; then
                missing+=" $argument"
                break
            fi
        done <<<"$entries"
    done
    echo "${missing# }"
}

# anaconda relabels /boot, /etc, /root, /var/lib and so on after this, but neither /usr/bin nor
# /usr/lib/systemd, /usr/local, /opt or the mount points (data/post-scripts/80-setfilecons.ks).
relabel() {
    [[ $NF_SELINUX != disabled ]] || return 0
    restorecon -i -f "$NF_RUN/unpacked"
}
