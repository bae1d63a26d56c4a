//! The end: nothing new is accepted, what runs may finish within a bound, and a second signal cuts it short.

use std::process::ExitCode;
use std::time::Duration;

use tokio::time::Instant;

use super::signals::{Asked, Signals};
use super::worker::{Crew, Ended};

/// The exit status after a second signal: 128 and the number of SIGINT, as shells have it.
const CUT_SHORT: u8 = 130;

/// Waits until all workers have ended, the bound is reached, or a second signal comes.
pub(crate) async fn drain(crew: &mut Crew, signals: &mut Signals, bound: Duration) -> ExitCode {
    tracing::info!(
        patience_s = bound.as_secs_f64(),
        "draining: nothing new is accepted"
    );
    crew.drain();
    let deadline = Instant::now() + bound;
    let mut remaining = crew.len();
    let mut code = ExitCode::SUCCESS;
    while remaining > 0 {
        tokio::select! {
            biased;
            asked = signals.next() => if asked == Asked::End {
                tracing::warn!("a second signal: ending at once");
                return ExitCode::from(CUT_SHORT);
            },
            ended = crew.ended() => match ended {
                None => break,
                Some(Ended { told: true, .. }) => remaining -= 1,
                Some(Ended { worker, told: false }) => {
                    tracing::error!(worker, "a worker ended before its connections did");
                    code = ExitCode::FAILURE;
                    remaining -= 1;
                }
            },
            () = tokio::time::sleep_until(deadline) => {
                tracing::warn!("the drain time-out is over; connections that are still open are cut off");
                return code;
            }
        }
    }
    tracing::info!("all connections have ended");
    code
}
