//! What EL8's systemd, 239, knows: from its manual pages (systemd.unit, .service, .exec,
//! .kill, .resource-control, .timer, .path, .socket, .mount, .link, tmpfiles.d), with what
//! 8.9's package 239-78 has of later versions. The `systemd-analyze` of the machine that
//! runs the tests is newer and is no judge of that.

/// Directives of `section` in a unit, or `None` for a section that is unknown.
///
/// Of the backports only those that a node's units have use for: `ExecCondition`
/// (RHEL 8.3), and `Type=exec`, `append:` in [`VALUES`].
pub fn unit_directives(section: &str) -> Option<Vec<&'static str>> {
    let own = match section {
        "Unit" => UNIT,
        "Install" => "Alias Also DefaultInstance RequiredBy WantedBy",
        "Service" => SERVICE,
        "Timer" => TIMER,
        "Path" => PATH,
        "Socket" => SOCKET,
        "Mount" => MOUNT,
        "Automount" => "DirectoryMode TimeoutIdleSec Where",
        "Swap" => "Options Priority TimeoutSec What",
        "Slice" => "",
        _ => return None,
    };
    let shared: &[&str] = match section {
        "Service" | "Socket" | "Mount" | "Swap" => &[EXEC, KILL, RESOURCES],
        "Slice" => &[RESOURCES],
        _ => &[],
    };
    Some([own].iter().chain(shared).flat_map(|names| names.split_whitespace()).collect())
}

const UNIT: &str = "
    After AllowIsolate Before BindsTo CollectMode Conflicts DefaultDependencies Description
    Documentation FailureAction IgnoreOnIsolate JobRunningTimeoutSec JobTimeoutAction
    JobTimeoutRebootArgument JobTimeoutSec JoinsNamespaceOf OnFailure OnFailureJobMode PartOf
    PropagatesReloadTo RebootArgument RefuseManualStart RefuseManualStop ReloadPropagatedFrom
    Requires RequiresMountsFor Requisite SourcePath StartLimitAction StartLimitBurst
    StartLimitIntervalSec StopWhenUnneeded SuccessAction Wants

    ConditionACPower ConditionArchitecture ConditionCapability ConditionControlGroupController
    ConditionDirectoryNotEmpty ConditionFileIsExecutable ConditionFileNotEmpty
    ConditionFirstBoot ConditionGroup ConditionHost ConditionKernelCommandLine
    ConditionKernelVersion ConditionNeedsUpdate ConditionPathExists ConditionPathExistsGlob
    ConditionPathIsDirectory ConditionPathIsMountPoint ConditionPathIsReadWrite
    ConditionPathIsSymbolicLink ConditionSecurity ConditionUser ConditionVirtualization

    AssertACPower AssertArchitecture AssertCapability AssertControlGroupController
    AssertDirectoryNotEmpty AssertFileIsExecutable AssertFileNotEmpty AssertFirstBoot
    AssertGroup AssertHost AssertKernelCommandLine AssertKernelVersion AssertNeedsUpdate
    AssertPathExists AssertPathExistsGlob AssertPathIsDirectory AssertPathIsMountPoint
    AssertPathIsReadWrite AssertPathIsSymbolicLink AssertSecurity AssertUser
    AssertVirtualization";

const SERVICE: &str = "
    BusName ExecCondition ExecReload ExecStart ExecStartPost ExecStartPre ExecStop ExecStopPost
    FileDescriptorStoreMax GuessMainPID NonBlocking NotifyAccess PIDFile PermissionsStartOnly
    RemainAfterExit Restart RestartForceExitStatus RestartPreventExitStatus RestartSec
    RootDirectoryStartOnly RuntimeMaxSec Sockets SuccessExitStatus TimeoutSec TimeoutStartSec
    TimeoutStopSec Type USBFunctionDescriptors USBFunctionStrings WatchdogSec";

const TIMER: &str = "
    AccuracySec OnActiveSec OnBootSec OnCalendar OnStartupSec OnUnitActiveSec OnUnitInactiveSec
    Persistent RandomizedDelaySec RemainAfterElapse Unit WakeSystem";

const PATH: &str = "
    DirectoryMode DirectoryNotEmpty MakeDirectory PathChanged PathExists PathExistsGlob
    PathModified Unit";

const SOCKET: &str = "
    Accept Backlog BindIPv6Only BindToDevice Broadcast DeferAcceptSec DirectoryMode
    ExecStartPost ExecStartPre ExecStopPost ExecStopPre FileDescriptorName FreeBind IPTOS IPTTL
    KeepAlive KeepAliveIntervalSec KeepAliveProbes KeepAliveTimeSec ListenDatagram ListenFIFO
    ListenMessageQueue ListenNetlink ListenSequentialPacket ListenSpecial ListenStream
    ListenUSBFunction Mark MaxConnections MaxConnectionsPerSource MessageQueueMaxMessages
    MessageQueueMessageSize NoDelay PassCredentials PassSecurity PipeSize Priority ReceiveBuffer
    RemoveOnStop ReusePort SELinuxContextFromNet SendBuffer Service SmackLabel SmackLabelIPIn
    SmackLabelIPOut SocketGroup SocketMode SocketProtocol SocketUser Symlinks TCPCongestion
    TimeoutSec Transparent TriggerLimitBurst TriggerLimitIntervalSec Writable";

const MOUNT: &str = "
    DirectoryMode ForceUnmount LazyUnmount Options SloppyOptions TimeoutSec Type What Where";

const EXEC: &str = "
    AmbientCapabilities AppArmorProfile BindPaths BindReadOnlyPaths CPUAffinity
    CPUSchedulingPolicy CPUSchedulingPriority CPUSchedulingResetOnFork CacheDirectory
    CacheDirectoryMode CapabilityBoundingSet ConfigurationDirectory ConfigurationDirectoryMode
    DynamicUser Environment EnvironmentFile Group IOSchedulingClass IOSchedulingPriority
    IgnoreSIGPIPE InaccessiblePaths KeyringMode LimitAS LimitCORE LimitCPU LimitDATA LimitFSIZE
    LimitLOCKS LimitMEMLOCK LimitMSGQUEUE LimitNICE LimitNOFILE LimitNPROC LimitRSS LimitRTPRIO
    LimitRTTIME LimitSIGPENDING LimitSTACK LockPersonality LogExtraFields LogLevelMax
    LogsDirectory LogsDirectoryMode MemoryDenyWriteExecute MountAPIVFS MountFlags Nice
    NoNewPrivileges OOMScoreAdjust PAMName PassEnvironment Personality PrivateDevices
    PrivateMounts PrivateNetwork PrivateTmp PrivateUsers ProtectControlGroups ProtectHome
    ProtectKernelModules ProtectKernelTunables ProtectSystem ReadOnlyPaths ReadWritePaths
    RemoveIPC RestrictAddressFamilies RestrictNamespaces RestrictRealtime RootDirectory
    RootImage RuntimeDirectory RuntimeDirectoryMode RuntimeDirectoryPreserve SELinuxContext
    SecureBits SmackProcessLabel StandardError StandardInput StandardInputData
    StandardInputText StandardOutput StateDirectory StateDirectoryMode SupplementaryGroups
    SyslogFacility SyslogIdentifier SyslogLevel SyslogLevelPrefix SystemCallArchitectures
    SystemCallErrorNumber SystemCallFilter TTYPath TTYReset TTYVHangup TTYVTDisallocate
    TemporaryFileSystem TimerSlackNSec UMask UnsetEnvironment User UtmpIdentifier UtmpMode
    WorkingDirectory";

const KILL: &str = "KillMode KillSignal SendSIGHUP SendSIGKILL";

const RESOURCES: &str = "
    BlockIOAccounting BlockIODeviceWeight BlockIOReadBandwidth BlockIOWeight
    BlockIOWriteBandwidth CPUAccounting CPUQuota CPUShares CPUWeight Delegate DeviceAllow
    DevicePolicy IOAccounting IODeviceWeight IOReadBandwidthMax IOReadIOPSMax IOWeight
    IOWriteBandwidthMax IOWriteIOPSMax IPAccounting IPAddressAllow IPAddressDeny
    MemoryAccounting MemoryHigh MemoryLimit MemoryLow MemoryMax MemorySwapMax Slice
    StartupBlockIOWeight StartupCPUShares StartupCPUWeight StartupIOWeight TasksAccounting
    TasksMax";

/// Directives whose values are a closed set, with the values 239 knows. A value that ends in
/// `:` may be followed by anything.
pub const VALUES: &[(&str, &[&str])] = &[
    ("Type", &["simple", "exec", "forking", "oneshot", "dbus", "notify", "idle"]),
    (
        "Restart",
        &["no", "always", "on-success", "on-failure", "on-abnormal", "on-abort", "on-watchdog"],
    ),
    ("KillMode", &["control-group", "process", "mixed", "none"]),
    ("ProtectSystem", &["yes", "no", "true", "false", "full", "strict"]),
    ("ProtectHome", &["yes", "no", "true", "false", "read-only", "tmpfs"]),
    ("StandardOutput", OUTPUTS),
    ("StandardError", OUTPUTS),
    ("NotifyAccess", &["none", "main", "exec", "all"]),
    (
        "StartLimitAction",
        &[
            "none",
            "reboot",
            "reboot-force",
            "reboot-immediate",
            "poweroff",
            "poweroff-force",
            "poweroff-immediate",
            "exit",
            "exit-force",
        ],
    ),
];

/// `file:` truncates nothing and writes from the start: `append:` (backported) is meant.
const OUTPUTS: &[&str] = &[
    "inherit",
    "null",
    "tty",
    "journal",
    "kmsg",
    "journal+console",
    "kmsg+console",
    "append:",
    "file:",
    "socket",
    "fd:",
];

/// Specifiers of systemd.unit(5), 239: `%X`.
pub const SPECIFIERS: &str = "bCEfhHiIjJLmnNpPsStTuUvV%";

/// Prefixes of an executable path in systemd.service(5), 239. `:` came with 244.
pub const EXEC_PREFIXES: &str = "@-+!";

/// Keys of `section` in a .link file. EL8 matches one 6-byte `MACAddress`, or `Path=`:
/// InfiniBand's 20-byte addresses are matched by path. `Property`, `PermanentMACAddress`,
/// several `Name` policies beyond these and `AlternativeName` are not relied on.
pub fn link_keys(section: &str) -> Option<&'static [&'static str]> {
    match section {
        "Match" => Some(&[
            "MACAddress",
            "OriginalName",
            "Path",
            "Driver",
            "Type",
            "Host",
            "Virtualization",
            "KernelCommandLine",
            "KernelVersion",
            "Architecture",
        ]),
        "Link" => Some(&[
            "Description",
            "Alias",
            "MACAddressPolicy",
            "MACAddress",
            "NamePolicy",
            "Name",
            "MTUBytes",
            "BitsPerSecond",
            "Duplex",
            "AutoNegotiation",
            "WakeOnLan",
            "Port",
            "GenericSegmentationOffload",
            "TCPSegmentationOffload",
            "TCP6SegmentationOffload",
            "UDPSegmentationOffload",
            "GenericReceiveOffload",
            "LargeReceiveOffload",
            "RxChannels",
            "TxChannels",
            "OtherChannels",
            "CombinedChannels",
        ]),
        _ => None,
    }
}

/// Line types of tmpfiles.d(5), 239. Of the modifiers it knows `!` and `+` only.
pub const TMPFILES_TYPES: &str = "fFwdDevqQpLcbCxXrRzZtThHaA";

/// Units of EL8's own packages, and of DAOS's, that a node's units may name.
pub const UNITS_OF_EL8: &[&str] = &[
    "-.mount",
    "basic.target",
    "chrony-wait.service",
    "chronyd.service",
    "crond.service",
    "daos_agent.service",
    "daos_server.service",
    "dbus.service",
    "dbus.socket",
    "default.target",
    "dev-hugepages.mount",
    "emergency.target",
    "final.target",
    "firewalld.service",
    "getty.target",
    "graphical.target",
    "ibacm.service",
    "initrd.target",
    "irqbalance.service",
    "kdump.service",
    "local-fs-pre.target",
    "local-fs.target",
    "multi-user.target",
    "network-online.target",
    "network-pre.target",
    "network.target",
    "NetworkManager-wait-online.service",
    "NetworkManager.service",
    "nss-lookup.target",
    "openibd.service",
    "opensm.service",
    "paths.target",
    "rdma-hw.target",
    "rdma-load-modules@.service",
    "remote-fs-pre.target",
    "remote-fs.target",
    "rescue.target",
    "rsyslog.service",
    "shutdown.target",
    "slices.target",
    "sockets.target",
    "sshd.service",
    "swap.target",
    "sysinit.target",
    "syslog.socket",
    "system.slice",
    "systemd-journald.service",
    "systemd-journald.socket",
    "systemd-modules-load.service",
    "systemd-remount-fs.service",
    "systemd-sysctl.service",
    "systemd-sysusers.service",
    "systemd-tmpfiles-clean.timer",
    "systemd-tmpfiles-setup-dev.service",
    "systemd-tmpfiles-setup.service",
    "systemd-udev-settle.service",
    "systemd-udevd.service",
    "systemd-user-sessions.service",
    "time-sync.target",
    "timers.target",
    "tuned.service",
    "umount.target",
];
