//! (founding commit: not written yet)
