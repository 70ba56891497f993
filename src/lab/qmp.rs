//! QEMU's control socket (docs/interop/qmp-spec): one command, one answer.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::lab::Lab;

/// QEMU answers between two pieces of its work; a loaded host makes that long.
const PATIENCE: Duration = Duration::from_secs(60);

/// A conversation with the QEMU of one node.
pub struct Qmp {
    lines: BufReader<UnixStream>,
}

impl Qmp {
    /// Connects to the QEMU of `node`.
    pub fn connect(lab: &Lab, node: &str) -> Result<Self> {
        let connect = || -> Result<Self> {
            let stream = UnixStream::connect(lab.socket(&format!("{node}.qmp")))?;
            stream.set_read_timeout(Some(PATIENCE))?;
            let mut qmp = Self { lines: BufReader::new(stream) };
            qmp.line()?;
            qmp.execute("qmp_capabilities")?;
            Ok(qmp)
        };
        connect().with_context(|| format!("asking the QEMU of {node}"))
    }

    /// Executes a command without arguments.
    pub fn execute(&mut self, command: &str) -> Result<Value> {
        writeln!(self.lines.get_mut(), "{}", json!({ "execute": command }))?;
        loop {
            let mut answer = self.line()?;
            if let Some(fault) = answer.get("error") {
                bail!("QEMU refuses {command}: {fault}");
            }
            // What happens meanwhile is told in between.
            if let Some(answer) = answer.get_mut("return") {
                return Ok(answer.take());
            }
        }
    }

    fn line(&mut self) -> Result<Value> {
        let mut line = String::new();
        if self.lines.read_line(&mut line)? == 0 {
            bail!("it hangs up");
        }
        Ok(serde_json::from_str(&line)?)
    }
}
