//! Preloaded into a program under test (`LD_PRELOAD`): its clocks show what the test says.
//!
//! The file that `POINTSMAN_CLOCK` names holds the seconds, eight bytes in the machine's order, by which the time of
//! day is ahead; the one that `POINTSMAN_MONOTONIC_CLOCK` names, those of the clock that timeouts are measured with.
//! Writing to a file moves that clock, from one moment to the next. A clock without a file stays as it is, and so does
//! the length of every sleep.
// The C library's functions are replaced, and files mapped, because it must cost next to nothing.
#![allow(unsafe_code)]

use libc::{
    CLOCK_BOOTTIME, CLOCK_MONOTONIC, CLOCK_MONOTONIC_COARSE, CLOCK_MONOTONIC_RAW, CLOCK_REALTIME,
    CLOCK_REALTIME_COARSE, MAP_FAILED, MAP_SHARED, O_CLOEXEC, O_RDONLY, PROT_READ, SYS_clock_gettime, c_int, c_long,
    c_void, clockid_t, suseconds_t, time_t, timespec, timeval,
};
use std::ffi::CStr;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicI64, AtomicPtr, Ordering};

static REALTIME: Ahead = Ahead::by(c"POINTSMAN_CLOCK");
static MONOTONIC: Ahead = Ahead::by(c"POINTSMAN_MONOTONIC_CLOCK");

/// clock_gettime(2).
///
/// # Safety
/// As of the C library's: `time` is null or may be written to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn clock_gettime(clock: clockid_t, time: *mut timespec) -> c_int {
    // SAFETY: the kernel checks what it is given. Not by the C library, whose function this is.
    let result = unsafe { libc::syscall(SYS_clock_gettime, c_long::from(clock), time) } as c_int;
    let ahead = match clock {
        CLOCK_REALTIME | CLOCK_REALTIME_COARSE => &REALTIME,
        CLOCK_MONOTONIC | CLOCK_MONOTONIC_COARSE | CLOCK_MONOTONIC_RAW | CLOCK_BOOTTIME => &MONOTONIC,
        _ => return result,
    };
    if result == 0 {
        // SAFETY: the kernel has written to it.
        unsafe { (*time).tv_sec += ahead.seconds() };
    }
    result
}

/// gettimeofday(2), which Redis goes by.
///
/// # Safety
/// As of the C library's: `time` may be written to. The time zone, long obsolete, is left alone.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gettimeofday(time: *mut timeval, _zone: *mut c_void) -> c_int {
    let now = now();
    // SAFETY: as the caller promises.
    if let Some(time) = unsafe { time.as_mut() } {
        *time = timeval { tv_sec: now.tv_sec, tv_usec: (now.tv_nsec / 1000) as suseconds_t };
    }
    0
}

/// time(2).
///
/// # Safety
/// As of the C library's: `time` is null or may be written to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn time(time: *mut time_t) -> time_t {
    let now = now().tv_sec;
    // SAFETY: as the caller promises.
    if let Some(time) = unsafe { time.as_mut() } {
        *time = now;
    }
    now
}

fn now() -> timespec {
    let mut now = timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: it may be written to.
    unsafe { clock_gettime(CLOCK_REALTIME, &raw mut now) };
    now
}

/// By how much a clock is ahead.
struct Ahead {
    /// The environment variable that names its file.
    variable: &'static CStr,
    /// The first bytes of the file, once it is mapped. It stays so until the program ends.
    file: AtomicPtr<AtomicI64>,
}

impl Ahead {
    const fn by(variable: &'static CStr) -> Self {
        Self { variable, file: AtomicPtr::new(null_mut()) }
    }

    fn seconds(&self) -> i64 {
        let mut file = self.file.load(Ordering::Relaxed);
        if file.is_null() {
            file = self.map();
            self.file.store(file, Ordering::Relaxed);
        }
        // SAFETY: null, or the beginning of a page that stays mapped.
        unsafe { file.as_ref() }.map_or(0, |seconds| seconds.load(Ordering::Relaxed))
    }

    /// Maps the file; null if it cannot.
    fn map(&self) -> *mut AtomicI64 {
        // SAFETY: the strings end in 0, the results are checked, and nothing is allocated: this may run before the
        // allocator does.
        unsafe {
            let path = libc::getenv(self.variable.as_ptr());
            if path.is_null() {
                return null_mut();
            }
            let file = libc::open(path, O_RDONLY | O_CLOEXEC);
            let page = libc::mmap(null_mut(), size_of::<AtomicI64>(), PROT_READ, MAP_SHARED, file, 0);
            libc::close(file);
            if page == MAP_FAILED { null_mut() } else { page.cast() }
        }
    }
}
