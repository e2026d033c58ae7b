//! Preloaded into a program under test (`LD_PRELOAD`): its clock shows another time.
//!
//! The file that `POINTSMAN_CLOCK` names holds the seconds, eight bytes in the machine's order, by which the clock is
//! ahead. Who writes them sets the clock, from one moment to the next. Timers go by another clock, which stays as it
//! is.
#![allow(unsafe_code)] // The C library's function is replaced, and a file mapped, because it must cost next to nothing.

use libc::{
    CLOCK_REALTIME, CLOCK_REALTIME_COARSE, MAP_FAILED, MAP_SHARED, O_CLOEXEC, O_RDONLY, PROT_READ, SYS_clock_gettime,
    c_int, c_long, clockid_t, timespec,
};
use std::ptr::null_mut;
use std::sync::atomic::{AtomicI64, AtomicPtr, Ordering};

/// The first bytes of the file, once it is mapped. It stays so until the program ends.
static AHEAD: AtomicPtr<AtomicI64> = AtomicPtr::new(null_mut());

/// clock_gettime(2).
///
/// # Safety
/// As of the C library's: `time` is null or may be written to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn clock_gettime(clock: clockid_t, time: *mut timespec) -> c_int {
    // SAFETY: the kernel checks what it is given. Not by the C library, whose function this is.
    let result = unsafe { libc::syscall(SYS_clock_gettime, c_long::from(clock), time) } as c_int;
    if result == 0 && matches!(clock, CLOCK_REALTIME | CLOCK_REALTIME_COARSE) {
        // SAFETY: the kernel has written to it.
        unsafe { (*time).tv_sec += ahead() };
    }
    result
}

fn ahead() -> i64 {
    let mut seconds = AHEAD.load(Ordering::Relaxed);
    if seconds.is_null() {
        seconds = map();
        AHEAD.store(seconds, Ordering::Relaxed);
    }
    // SAFETY: null, or the beginning of a page that stays mapped.
    unsafe { seconds.as_ref() }.map_or(0, |seconds| seconds.load(Ordering::Relaxed))
}

/// Maps the file; null if it cannot.
fn map() -> *mut AtomicI64 {
    // SAFETY: the strings end in 0, the results are checked, and nothing is allocated: this may run before the
    // allocator does.
    unsafe {
        let path = libc::getenv(c"POINTSMAN_CLOCK".as_ptr());
        if path.is_null() {
            return null_mut();
        }
        let file = libc::open(path, O_RDONLY | O_CLOEXEC);
        let page = libc::mmap(null_mut(), size_of::<AtomicI64>(), PROT_READ, MAP_SHARED, file, 0);
        libc::close(file);
        if page == MAP_FAILED { null_mut() } else { page.cast() }
    }
}
