//! What holds for every target beside its laws: an input takes no more than a second of the processor and 64 MiB.

use std::alloc::{GlobalAlloc, Layout, System};
use std::panic::{self, AssertUnwindSafe};
use std::process;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, Once, PoisonError};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// What one input may take.
const LONGEST: Duration = Duration::from_secs(1);
const MOST: usize = 64 * 1024 * 1024;

/// Counts what is taken from the system's allocator.
struct Counted;

static NOW: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

fn taken(size: usize) {
    let now = NOW.fetch_add(size, Ordering::Relaxed) + size;
    PEAK.fetch_max(now, Ordering::Relaxed);
}

// SAFETY: each call goes to the system's allocator as it came; only numbers are kept beside it.
unsafe impl GlobalAlloc for Counted {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        taken(layout.size());
        // SAFETY: as of the caller.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        taken(layout.size());
        // SAFETY: as of the caller.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        NOW.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: as of the caller.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        taken(size);
        NOW.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: as of the caller.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counted = Counted;

/// What this thread has had of the processor: a machine that is busy with others makes no input slow.  One that waits is found by
/// libFuzzer's own bound.
fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.try_into().unwrap_or_default(), time.tv_nsec.try_into().unwrap_or_default())
}

/// What the last panic said.
static SAID: Mutex<String> = Mutex::new(String::new());
static QUIET: Once = Once::new();

/// Runs a target on an input, and ends the process when a law does not hold, or when the input takes too much time or
/// memory.
pub fn check(target: &str, data: &[u8]) {
    // The server catches what a library's parser panics at and goes on without it: that is no finding, as it would be by
    // libFuzzer's own hook.
    QUIET.call_once(|| {
        panic::set_hook(Box::new(|panic| {
            *SAID.lock().unwrap_or_else(PoisonError::into_inner) = panic.to_string();
        }));
    });
    let before = NOW.load(Ordering::Relaxed);
    PEAK.store(before, Ordering::Relaxed);
    let began = processor_time();
    let ran = panic::catch_unwind(AssertUnwindSafe(|| switchboard::fuzz::run(target, data)));
    let (took, most) = (processor_time().saturating_sub(began), PEAK.load(Ordering::Relaxed).saturating_sub(before));
    let wrong = if ran.is_err() {
        SAID.lock().unwrap_or_else(PoisonError::into_inner).clone()
    } else if took > LONGEST {
        format!("it takes {took:?}")
    } else if most > MOST {
        format!("it takes {most} bytes of memory")
    } else {
        return;
    };
    eprintln!("{target}: {wrong}");
    process::abort();
}
