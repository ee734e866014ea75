// A session that looks as if it had read a long text, without having read it: for timing decode at depths
// that would take hours to reach. Whoever prints such a figure says "synthetic" beside it.
#pragma once
#include <cstdint>
#include <functional>

#include "mneme/session.h"

namespace mneme {

/// Extends an empty session by n positions whose token ids, keys and values are pseudo-random and depend on
/// `seed` alone: normal values, every block in memory of its own, windows only as long as they are kept,
/// states of recurrences normal too. `progress` as in AppendOptions. Throws Error: invalid_argument (the
/// session is not empty), limit (context), out_of_memory.
void fill_synthetic(Session& session, uint64_t n, uint64_t seed,
                    const std::function<void(uint64_t done, uint64_t total)>& progress = {});

}  // namespace mneme
