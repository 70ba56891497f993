# shellcheck shell=bash
# What the scripts of a kickstart share: the kernel line, messages, and the way to stop.
#
# They run in the installer image of EL8, where lorax 28.14 has removed much of coreutils and
# util-linux (share/templates.d/99-generic/runtime-cleanup.tmpl): there is no base64, stat,
# timeout, install, truncate, cmp or diff.
#
# NF_SYSROOT is empty on a node; tests put a made-up machine there. The values of the node
# (NF_NODE, NF_DISK_…) come from node.sh beside this file.

set -eEuo pipefail

NF_SYSROOT=${NF_SYSROOT:-}
NF_RUN=${NF_RUN:-$NF_SYSROOT/run/nodeforge}
NF_TARGET=${NF_TARGET:-${ANA_INSTALL_PATH:-/mnt/sysimage}}
NF_STEP=start
NF_TOUCHED=""

# Names what the script is at, and what a person who reads a refusal wants to know first.
begin_step() { # NAME [WHAT IS TOUCHED]
    NF_STEP=$1
    NF_TOUCHED=${2:-$NF_TOUCHED}
}

# Prints the last value of NAME= on the kernel line, or nothing.
kernel_argument() {
    local word found=
    local -a words
    read -ra words <"$NF_SYSROOT/proc/cmdline" || true
    for word in "${words[@]}"; do
        if [[ $word == "$1="* ]]; then found=${word#*=}; fi
    done
    printf '%s\n' "$found"
}

# Prints the number of the grant on the kernel line: the one a person typed, or the boot
# server's, or nothing.
granted() {
    local told
    told=$(kernel_argument nodeforge.reinstall)
    if [[ -n $told ]]; then printf '%s\n' "$told"; else kernel_argument nodeforge.grant; fi
}

# The terminals a person may look at: the installer's own and each console= of the kernel line.
consoles() {
    local name active=
    read -r active 2>/dev/null <"$NF_SYSROOT/sys/class/tty/console/active" || active=tty0
    for name in tty1 $active; do
        # tty0 is whatever is in the foreground; the kernel's console device goes there.
        if [[ $name == tty0 ]]; then name=console; fi
        printf '%s\n' "$NF_SYSROOT/dev/$name"
    done | sort -u
}

# Shows a message on every console and in the log of the section.
say() {
    printf '%s\n' "$1"
    show "$1"
}

show() {
    local console
    while read -r console; do
        { printf '\r\n%s\r\n' "${1//$'\n'/$'\r\n'}" >>"$console"; } 2>/dev/null || true
    done < <(consoles)
}

# A string as JSON writes it; control characters become spaces.
json() {
    local text=$1
    text=${text//\\/\\\\}
    text=${text//\"/\\\"}
    printf '"%s"' "${text//[[:cntrl:]]/ }"
}

# Text without the words of the kernel line that open something.
without_tokens() {
    sed 's/nodeforge\.\([a-z_]*token\)=[^[:space:]"'\'']*/nodeforge.\1=(removed)/g'
}

# Posts a step of the installation to the boot server, if the kernel line gives an event
# token, with the end of a log. Reporting never stops or holds up an installation.
report() { # STEP STATE MESSAGE [LOG]
    local token line log=
    token=$(kernel_argument nodeforge.event_token)
    if [[ -z $token ]]; then return; fi
    while read -r line; do
        if [[ -n $line ]]; then log+=,$(json "$line"); fi
    done < <(without_tokens <<<"${4:-}" | tail -n 20 | cut -c 1-300)
    if [[ -n $log ]]; then log=",\"log\":[${log#,}]"; fi
    printf 'header = "Authorization: Bearer %s"\n' "$token" |
        curl --config - --silent --fail --noproxy '*' --connect-timeout 3 --max-time 5 \
            --header 'Content-Type: application/json' --output /dev/null \
            --data-binary "{\"node\":$(json "$NF_NODE"),\"step\":$(json "$1"),\"state\":$(json "$2"),\"message\":$(json "$3")$log}" \
            "$NF_URL/events" || true
}

# Stops for good: the reason stays on every console until a person comes. Ending the script
# instead would let the installer restart the machine, and so loop. The boot server is told the
# reason, or a shorter one, and the end of a log.
refuse() { # REASON [WHAT TO DO [LOG [SHORT REASON]]]
    trap - ERR
    set +e
    local text
    text="
==================== nodeforge: $NF_NODE is NOT installed ====================
$1
$NF_TOUCHED
${2:-}
Waiting for a person; restart the machine when the cause is gone.
(step: $NF_STEP; a shell is on Alt+F2)"
    report "$NF_STEP" refused "${4:-$1}" "${3:-}"
    printf '%s\n' "$text"
    while :; do
        show "$text"
        sleep 30
    done
}

# A command failed that had no business to. Inside a command substitution it is the caller
# who fails, or who has an answer.
failed() { # LINE COMMAND
    local log
    log=$(cat "$NF_SYSROOT"/tmp/nodeforge-*.log 2>/dev/null) || true
    refuse "Line $1 of step '$NF_STEP' failed: $2" "The log is /tmp/nodeforge-*.log in the installer." "$log"
}

trap '((BASH_SUBSHELL)) || failed "$LINENO" "$BASH_COMMAND"' ERR
