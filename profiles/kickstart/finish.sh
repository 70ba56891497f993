# shellcheck shell=bash
# The last step: logs without secrets, and the mark that the installation is complete.

begin_step finish "The disk has been partitioned and the packages are on it, but this node must not be used."

finish_installation() {
    keep_logs
    forget_secrets
    store_event_token
    store_wipe_grant
    store_grant
    report "$NF_STEP" ended "installed"
}

# What anaconda keeps in the installed system, less the words of the kernel line that open
# something. anaconda's own copy comes after this script (data/post-scripts/99-copy-logs.ks)
# and is told to stay out.
keep_logs() {
    local log to=$NF_TARGET/var/log/anaconda
    mkdir -p "$to"
    for log in "$NF_SYSROOT"/tmp/{anaconda,syslog,program,packaging,storage,ifcfg,lvm,dnf.librepo,hawkey,dbus,ks-script*,nodeforge-*}{,.log}; do
        [[ ! -f $log ]] || without_tokens <"$log" >"$to/${log##*/}"
    done
    journalctl -b 2>/dev/null | without_tokens >"$to/journal.log" || true
    chmod 0600 "$to"/*
    : >"$NF_SYSROOT/tmp/NOSAVE_LOGS"
}

# A kickstart with embedded secrets must not stay behind in /root.
forget_secrets() {
    rm -rf "$NF_RUN/archives" "$NF_RUN/embedded"
    if [[ $NF_SECRETS == embedded ]]; then
        rm -f "$NF_TARGET/root/anaconda-ks.cfg" "$NF_TARGET/root/original-ks.cfg"
        : >"$NF_SYSROOT/tmp/NOSAVE_INPUT_KS"
    fi
}

# The node goes on reporting from its first boot on. The token passes through no argument and
# no log, and the kernel line that held it is gone with the next boot.
store_event_token() {
    local token
    token=$(kernel_argument nodeforge.event_token)
    [[ -n $token ]] || return 0
    [[ $token =~ ^[A-Za-z0-9._~+/=-]+$ ]] ||
        refuse "nodeforge.event_token= on the kernel line holds characters that no token has."
    mkdir -p "$NF_TARGET/etc/nodeforge"
    (umask 077 && printf '%s\n' "$token" >"$NF_TARGET/etc/nodeforge/event-token")
    chmod 0600 "$NF_TARGET/etc/nodeforge/event-token"
}

# Whoever told the installer to wipe DAOS's filesystems gave up what lies on its SSDs, too:
# preflight would otherwise refuse them for want of their superblocks.
store_wipe_grant() {
    [[ $(kernel_argument nodeforge.wipe_daos) == 1 && -n $(granted) ]] || return 0
    mkdir -p "$NF_TARGET/var/lib/nodeforge"
    printf '%s by the installer\n' "$NF_NODE" >"$NF_TARGET/var/lib/nodeforge/wipe-grant"
}

# From here on this disk counts as installed: without a higher number on the kernel line the
# installer goes back to it.
store_grant() {
    local grant folder=$NF_TARGET/var/lib/nodeforge
    grant=$(granted)
    mkdir -p "$folder"
    printf '%s\n' "${grant:-0}" >"$folder/grant.new"
    chmod 0600 "$folder/grant.new"
    sync "$folder/grant.new"
    mv "$folder/grant.new" "$folder/grant"
    sync
}
