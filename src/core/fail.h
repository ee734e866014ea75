// fail(code, "format {}", args...) throws mneme::Error with a formatted message; require() is the same on a
// condition.
#pragma once
#include <fmt/format.h>

#include <utility>

#include "mneme/error.h"

namespace mneme {

template <class... Args>
[[noreturn]] void fail(ErrorCode code, fmt::format_string<Args...> format, Args&&... args) {
  throw Error(code, fmt::format(format, std::forward<Args>(args)...));
}

template <class... Args>
void require(bool condition, ErrorCode code, fmt::format_string<Args...> format, Args&&... args) {
  if (!condition) [[unlikely]]
    fail(code, format, std::forward<Args>(args)...);
}

}  // namespace mneme
