//! /etc/nodeforge/format.json: what the admin that formats must know.
//!
//! /usr/libexec/nodeforge/format of the overlay `daos-admin` reads it. All admins get the same
//! file: who formats stands in it.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use serde::Serialize;

use crate::cluster::{Cluster, Container, Node, Pool, PoolSize, Sited, VarValue};

/// The file's contents.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FormatPlan {
    /// The DAOS system's name.
    pub system: String,
    /// The node that formats; `null` where the cluster has no admin.
    pub format_by: Option<String>,
    /// How long it waits for all servers.
    pub deadline_seconds: u64,
    /// The control plane's TCP port.
    pub port: u16,
    /// Empty if there is none.
    pub domain: String,
    pub access_points: Vec<String>,
    /// Sorted by name.
    pub servers: Vec<ServerPlan>,
    /// In the order of the cluster file.
    pub pools: Vec<PoolPlan>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ServerPlan {
    pub name: String,
    /// What the name stands for; `null` without an address.
    pub address: Option<String>,
    /// Of all its NICs: a server may join from another than the first.
    pub addresses: Vec<String>,
    /// How many ranks it brings.
    pub engines: usize,
}

/// What `dmg pool create` is told, as it is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PoolPlan {
    pub label: String,
    /// `90%`, or bytes.
    pub size: String,
    /// `6,94`.
    pub tier_ratio: Option<String>,
    /// `0,1,2`.
    pub ranks: Option<String>,
    /// `rd_fac:1,space_rb:5`.
    pub properties: Option<String>,
    pub user: Option<String>,
    pub group: Option<String>,
    pub acl: Vec<String>,
    pub containers: Vec<ContainerPlan>,
}

/// What `daos container create` is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ContainerPlan {
    pub label: String,
    #[serde(rename = "type")]
    pub kind: String,
    pub properties: Option<String>,
}

impl FormatPlan {
    pub fn of(cluster: &Cluster) -> Self {
        let daos = &cluster.daos;
        let servers = cluster.nodes.iter().filter(|node| cluster.kind_of(node).is_server());
        Self {
            system: daos.system_name.value.clone(),
            format_by: daos.format_by.as_ref().map(|admin| admin.value.to_string()),
            deadline_seconds: daos.format_deadline.as_u64(),
            port: daos.port.value,
            domain: cluster.domain.clone(),
            access_points: daos.access_points.iter().map(|name| name.value.to_string()).collect(),
            servers: servers.map(|node| server(cluster, node)).collect(),
            pools: daos.pools.iter().map(pool).collect(),
        }
    }

    /// The text of the file.
    pub fn to_json(&self) -> String {
        let mut text = serde_json::to_string_pretty(self).expect("plain values become JSON");
        text.push('\n');
        text
    }
}

fn server(cluster: &Cluster, node: &Node) -> ServerPlan {
    ServerPlan {
        name: node.name.to_string(),
        address: cluster.primary_address(node).map(|address| address.to_string()),
        addresses: {
            let addresses = node.nics.iter().filter_map(|nic| nic.ip);
            addresses.map(|address: Ipv4Addr| address.to_string()).collect()
        },
        engines: cluster.kind_of(node).engines.len(),
    }
}

fn pool(pool: &Pool) -> PoolPlan {
    PoolPlan {
        label: pool.label.value.clone(),
        size: match pool.size.value {
            PoolSize::Share(percent) => format!("{percent}%"),
            // dmg reads TiB as 2^40, but says otherwise of TB: bytes leave no doubt.
            PoolSize::Total(size) => format!("{}B", size.bytes()),
        },
        tier_ratio: pool.tier_ratio.as_ref().map(|ratio| {
            let first = ratio.value;
            format!("{first},{}", 100 - first)
        }),
        ranks: (!pool.ranks.is_empty()).then(|| {
            let ranks: Vec<String> = pool.ranks.iter().map(|rank| rank.value.to_string()).collect();
            ranks.join(",")
        }),
        properties: properties(&pool.properties),
        user: pool.user.as_ref().map(|user| user.value.clone()),
        group: pool.group.as_ref().map(|group| group.value.clone()),
        acl: pool.acl.iter().map(|entry| entry.value.clone()).collect(),
        containers: pool.containers.iter().map(container).collect(),
    }
}

fn container(container: &Container) -> ContainerPlan {
    ContainerPlan {
        label: container.label.value.clone(),
        kind: container.kind.clone(),
        properties: properties(&container.properties),
    }
}

/// `rd_fac:1,space_rb:5`, sorted by name.
fn properties(properties: &BTreeMap<String, Sited<VarValue>>) -> Option<String> {
    let pairs: Vec<String> = properties
        .iter()
        .map(|(name, value)| match &value.value {
            VarValue::Text(text) => format!("{name}:{text}"),
            VarValue::Integer(number) => format!("{name}:{number}"),
            VarValue::Bool(value) => format!("{name}:{value}"),
        })
        .collect();
    (!pairs.is_empty()).then(|| pairs.join(","))
}
