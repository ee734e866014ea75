// Ctrl-C, SIGTERM and SIGHUP: the first lets the step end and be saved, the second ends the program at once.
//
// No thread that computes may receive them. The kernel writes a signal's frame (3 KB with AVX-512) below the
// stack pointer of the thread that it interrupts, and oneDNN's generated matrix products let that register
// point into memory from malloc while they run: a handler there overwrites whatever lies before it. So the
// threads of the trainer block these signals, and one that does nothing else receives them.
#pragma once

namespace mneme::train {

/// Call once, at the start of main and before any other thread is started, since threads inherit what is
/// blocked. A signal that is ignored (as by nohup) stays so.
void receive_interrupts();
/// Whether one came. Thread-safe.
bool interrupted() noexcept;

}  // namespace mneme::train
