//! The timeline: shows arrivals as they come, and keeps them for the check.

use std::time::Duration;

use tokio::sync::mpsc::UnboundedReceiver;

use super::arrival::Noted;
use super::check::{Tally, check};
use super::failure::Result;
use super::journal::Journal;
use super::line;
use super::page::Page;
use super::plan::Plan;

/// How long the demo still listens when everything is there: what comes twice comes soon.
const AFTERMATH: Duration = Duration::from_millis(250);

/// Shows what arrives.
#[derive(Debug)]
pub struct Timeline<'a> {
    page: Page,
    plan: &'a Plan,
    arrivals: UnboundedReceiver<Noted>,
    journal: Journal,
}

impl<'a> Timeline<'a> {
    /// Begins with a heading.
    pub fn new(page: Page, plan: &'a Plan, arrivals: UnboundedReceiver<Noted>) -> Self {
        page.line(line::heading());
        Self { page, plan, arrivals, journal: Journal::default() }
    }

    /// What was shown so far.
    pub fn journal(&self) -> &Journal {
        &self.journal
    }

    /// Runs `publishing` and shows what arrives, until everything has, or until `limit`.
    ///
    /// # Errors
    /// Those of `publishing`.
    pub async fn follow(
        &mut self,
        publishing: impl Future<Output = Result<()>>,
        limit: Duration,
    ) -> Result<()> {
        let deadline = tokio::time::sleep(limit);
        tokio::pin!(publishing, deadline);
        let mut published = false;
        while !(published && self.has_everything()) {
            tokio::select! {
                outcome = &mut publishing, if !published => {
                    outcome?;
                    published = true;
                }
                Some(noted) = self.arrivals.recv() => self.show(noted),
                () = &mut deadline => return Ok(()),
            }
        }
        // Never ends by itself; what is cut off is only the waiting.
        let _ = tokio::time::timeout(AFTERMATH, self.go_on()).await;
        Ok(())
    }

    /// Shows what arrives, for as long as anything can.
    pub async fn go_on(&mut self) {
        while let Some(noted) = self.arrivals.recv().await {
            self.show(noted);
        }
    }

    fn has_everything(&self) -> bool {
        check(self.plan, &self.journal).iter().all(Tally::is_complete)
    }

    fn show(&mut self, noted: Noted) {
        if let Some((tone, line)) = line::line(self.plan, &self.journal, &noted) {
            self.page.toned(tone, line);
        }
        self.journal.add(self.plan, noted);
    }
}
