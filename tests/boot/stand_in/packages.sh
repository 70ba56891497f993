# shellcheck shell=bash
# What the packages of DAOS bring: names, owners, modes. Which of them the node gets, the
# kickstart's list of packages says.

# Puts DAOS's programs on the system it runs in, from `fakes` in the current folder, by the list
# `packages` there.
install_fakes() {
    local tests=/usr/libexec/nodeforge-test name
    mkdir -p "$tests/bin" /usr/share/nodeforge-test
    cp packages /usr/share/nodeforge-test/packages
    chmod 755 fakes
    cp fakes "$tests/bin/dmg"
    grep -qx daos-admin packages || rm /usr/bin/dmg
    if grep -qx daos-server packages; then
        for name in daos_server daos_server_helper; do cp fakes "/usr/bin/$name"; done
        ln "$tests/bin/dmg" /usr/bin/daos_engine
        chown root:daos_server /usr/bin/daos_server /usr/bin/daos_server_helper
        chmod 2755 /usr/bin/daos_server
        chmod 4750 /usr/bin/daos_server_helper
    else
        rm -r /usr/lib/systemd/system/daos_server.service*
    fi
    if grep -qx daos-client packages; then
        for name in daos_agent daos; do ln "$tests/bin/dmg" "/usr/bin/$name"; done
    else
        rm -r /usr/lib/systemd/system/daos_agent.service*
    fi
}
