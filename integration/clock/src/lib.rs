//! Library that is preloaded into a program under test (`LD_PRELOAD`) and sets the program's clocks.
//!
//! The file named by `POINTSMAN_CLOCK` holds by how many seconds the time of day is ahead, in eight bytes of native
//! byte order. The file named by `POINTSMAN_MONOTONIC_CLOCK` holds the same for the clock that timeouts are measured
//! with. Writing to a file moves its clock immediately. A clock without a file is left alone, and sleeps keep their
//! length.
//! the length of every sleep.
// The library replaces functions of the C library and maps files, because it must cost next to nothing.
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
/// As for the C library's function: `time` is null or valid for writes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn clock_gettime(clock: clockid_t, time: *mut timespec) -> c_int {
    // SAFETY: the kernel checks its arguments. This is a system call because the C library's function is the one
    // replaced here.
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

/// gettimeofday(2), which Redis uses.
///
/// # Safety
/// As for the C library's function: `time` is null or valid for writes. The time zone, long obsolete, is ignored.
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
/// As for the C library's function: `time` is null or valid for writes.
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
    // SAFETY: it is valid for writes.
    unsafe { clock_gettime(CLOCK_REALTIME, &raw mut now) };
    now
}

/// How far a clock is ahead.
struct Ahead {
    /// The environment variable that names its file.
    variable: &'static CStr,
    /// The start of the mapped file, or null before it is mapped. It stays mapped until the program ends.
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
        // SAFETY: null, or the start of a page that stays mapped.
        unsafe { file.as_ref() }.map_or(0, |seconds| seconds.load(Ordering::Relaxed))
    }

    /// Maps the file. Returns null if it cannot.
    fn map(&self) -> *mut AtomicI64 {
        // SAFETY: the strings end in 0 and the results are checked. Nothing is allocated, because this may run before
        // the allocator does.
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
