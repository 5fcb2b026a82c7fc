//! A message of what is ready to be sent: as much as there is, up to a bound.

use bytes::Bytes;

use super::Stream;
use crate::error::Result;
use crate::event::bus::Read;
use crate::failpoint;
use crate::notification::frame::{self, Frame, SubscribeFrame as _};
use crate::pb::switchboard::notification::v1::{Resync, resync};

/// A frame takes no more events once it has this many, or this many bytes of payload.
pub(super) const FRAME_EVENTS: usize = 64;
const FRAME_BYTES: usize = 16 * 1024;
/// How many events are looked at at a time when those before were not wanted.
const WIDE_BATCH: usize = 512;

fn full(events: usize, bytes: usize) -> bool {
    events >= FRAME_EVENTS || bytes >= FRAME_BYTES
}

impl Stream {
    /// A frame of what is ready and shown; `None` when nothing is.
    pub(super) async fn ready(&mut self) -> Result<Option<Frame>> {
        let (mut events, mut bytes) = (Vec::new(), 0);
        if self.position < self.watcher.head() {
            let Some(Read { records, through }) =
                self.watcher.after_at_most(self.position, self.batch).await?
            else {
                return Ok(Some(self.skip()));
            };
            // What was published after another caller took the place of the one before is that caller's to see.
            if self.seat.is_changed() {
                return Ok(None);
            }
            let mut all = true;
            for record in records {
                self.position = record.event.position;
                if !self.view.shows(&record.event.fact) || failpoint::bug("stream_event_skipped") {
                    continue;
                }
                let piece = frame::encoded(&record, self.source.bus.epoch());
                bytes += piece.len();
                events.push(piece);
                // What was read beyond it is read again: a stream holds nothing while it waits for its peer.
                if full(events.len(), bytes) {
                    all = false;
                    break;
                }
            }
            if all {
                self.position = self.position.max(through);
            }
            self.batch = if events.is_empty() { WIDE_BATCH } else { FRAME_EVENTS };
        }
        if self.number < self.source.hub.head() && !full(events.len(), bytes) {
            let taken = self.source.hub.after(self.number, self.watcher.wanted(), FRAME_EVENTS);
            if self.seat.is_changed() {
                return Ok((!events.is_empty()).then(|| self.frame_of(events)));
            }
            let mut through = taken.through;
            for (number, event) in taken.events {
                if full(events.len(), bytes) {
                    through = number - 1;
                    break;
                }
                // A snapshot has what is kept under a key.
                let old = self.snapshot.is_some_and(|end| number <= end && event.collapse_key.is_empty());
                if !old && self.view.shows(&event.fact) {
                    let piece = frame::encoded_ephemeral(&event);
                    bytes += piece.len();
                    events.push(piece);
                }
            }
            self.number = through;
        }
        let complete = self.snapshot.is_some_and(|end| self.number >= end);
        if events.is_empty() && !complete {
            return Ok(None);
        }
        let mut frame = self.frame_of(events);
        if complete {
            self.snapshot = None;
            frame = frame.snapshot_end();
        }
        Ok(Some(frame))
    }

    fn frame_of(&self, events: Vec<Bytes>) -> Frame {
        let mut frame = Frame::at(self.cursor());
        events.into_iter().for_each(|event| frame.push(event));
        frame
    }

    /// Goes on at the end of the log, and says that there is a gap before it.
    fn skip(&mut self) -> Frame {
        let reason = resync::Reason::Lag;
        self.source.metrics.live_resync(reason.as_str_name());
        self.position = self.watcher.head();
        Frame::at(self.cursor()).resync(Resync { reason: reason.into() })
    }
}
