// Every failure that input can cause is a mneme::Error: a code to branch on, and one line for people that
// says what was wrong, where, and what would be right. The library never asserts, aborts or exits on input.
#pragma once
#include <stdexcept>
#include <string>
#include <string_view>

namespace mneme {

enum class ErrorCode {
  invalid_argument,  // a parameter outside its documented range
  not_found,         // no such file, model, tensor or name
  io,                // the operating system refused a read or write
  corrupt,           // a file contradicts its own format or checksum
  unsupported,       // well-formed, but this version cannot do it
  mismatch,          // two things that must belong together do not (snapshot and model, shard and index)
  limit,             // a configured bound would be exceeded (context, rollback, memory budget)
  out_of_memory,     // an allocation failed
  cancelled,         // the caller asked to stop
  network,           // a transfer failed
  internal           // a bug in Mneme
};

/// Stable lower-case name of a code, e.g. "corrupt".
std::string_view to_string(ErrorCode code) noexcept;

class Error : public std::runtime_error {
 public:
  Error(ErrorCode code, const std::string& message) : std::runtime_error(message), code_(code) {}
  ErrorCode code() const noexcept { return code_; }

 private:
  ErrorCode code_;
};

}  // namespace mneme
