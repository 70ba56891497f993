# shellcheck shell=bash
# Finds out which node of a medium for all nodes this machine is, by the MAC addresses of its
# NICs and by its serial number, and hands over what is that node's own.
#
# The archive nodeforge-nodes.tar.ks holds `index`, of lines "mac 52:54:00:03:00:11 node0" and
# "serial ABC1234 node0", and for each node a folder with commands.ks, pre.sh and its archives.
#
# SC2034: lib.sh, which is read before, names the node by them.
# shellcheck disable=SC2034

NF_NODE="this machine"
NF_URL=
NF_NODES=$NF_SYSROOT/nodeforge-nodes.tar.ks
NF_CHOSEN=$NF_RUN/chosen

pick_node() {
    begin_step pick "Nothing on any disk has been touched."
    mkdir -p "$NF_CHOSEN"
    tar --extract --file="$NF_NODES" --directory="$NF_CHOSEN" index ||
        refuse "The medium's list of nodes cannot be read."
    find_match
    tar --extract --file="$NF_NODES" --directory="$NF_CHOSEN" "$matched" ||
        refuse "The medium holds nothing for $matched, although its list does."
    say "nodeforge: this machine is $matched."
    hand_over "$NF_CHOSEN/$matched"
}

# The one name that this machine goes by; more than one is as bad as none.
find_match() {
    matched=$(matches | sort -u)
    case $(grep -c . <<<"$matched" || true) in
        1) ;;
        0) refuse "No node of this medium has one of the MAC addresses or the serial number of this machine.
It has: $(identity | tr '\n' ' ')" "Add it to the cluster file and make the medium anew, or take the medium out." ;;
        *) refuse "This machine goes by several nodes of this medium: ${matched//$'\n'/ }
It has: $(identity | tr '\n' ' ')" "Correct the MAC addresses and serial numbers of the cluster file and make the medium anew." ;;
    esac
}

matches() {
    local kind value wanted_kind wanted name
    while read -r kind value; do
        while read -r wanted_kind wanted name; do
            if [[ $kind == "$wanted_kind" && ${value,,} == "${wanted,,}" ]]; then
                printf '%s\n' "$name"
            fi
        done <"$NF_CHOSEN/index"
    done < <(identity)
}

# What this machine can be told by, as the index says it.
identity() {
    local file value
    for file in "$NF_SYSROOT"/sys/class/net/*/address; do
        read -r value 2>/dev/null <"$file" || continue
        [[ $value == 00:00:00:00:00:00 ]] || printf 'mac %s\n' "$value"
    done
    read -r value 2>/dev/null <"$NF_SYSROOT/sys/class/dmi/id/product_serial" || return 0
    [[ -z $value ]] || printf 'serial %s\n' "$value"
}

# As if the medium had been made for this node alone.
hand_over() { # FOLDER
    local file
    for file in overlay secrets; do
        [[ ! -e $1/$file.tar.gz ]] || mv "$1/$file.tar.gz" "$NF_SYSROOT/nodeforge-$file.tar.gz.ks"
    done
    cp "$1/commands.ks" "$NF_SYSROOT/tmp/nodeforge-node.ks"
    cp "$1/pre.sh" "$NF_RUN/pre.sh"
}
