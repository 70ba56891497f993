//! SIGINT and SIGTERM, by which a person or a service manager ends what runs.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result};
use tokio::signal::unix::{SignalKind, signal};

/// Waits for the first of them.
///
/// # Errors
///
/// Fails if they cannot be listened for.
pub async fn wait() -> Result<()> {
    let mut interrupt = signal(SignalKind::interrupt()).context("listening for signals")?;
    let mut terminate = signal(SignalKind::terminate()).context("listening for signals")?;
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    Ok(())
}

/// For code that looks every now and then: true once one of them has come. From then on the process
/// itself has to end; they do not end it any more.
///
/// # Errors
///
/// Fails if they cannot be listened for.
pub fn noticed() -> Result<Arc<AtomicBool>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build();
    let runtime = runtime.context("listening for signals")?;
    let is_noticed = Arc::new(AtomicBool::new(false));
    let noticed = Arc::clone(&is_noticed);
    std::thread::spawn(move || {
        // Without signals nobody interrupts, which is no more than that.
        if runtime.block_on(wait()).is_ok() {
            noticed.store(true, Ordering::Relaxed);
        }
    });
    Ok(is_noticed)
}
