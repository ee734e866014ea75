// What a transport in a library of its own offers to the program that loads it. Plain C types, so that the
// two need not be built by one compiler, and no exception crosses the border: a function returns null, or one
// line that says what went wrong (valid until the next call from that thread). Functions may be called from
// several threads.
#pragma once
#include <cstdint>

extern "C" {

struct MnemeTransportV1 {
  /// Joins the processes that a launcher started.
  const char* (*open)(uint32_t* rank, uint32_t* size);
  /// Copies the bytes and returns at once.
  const char* (*send)(uint32_t to, const void* bytes, uint64_t size);
  /// *bytes is null if nothing has come; else it belongs to the caller, who gives it to release().
  const char* (*poll)(uint32_t* from, void** bytes, uint64_t* size);
  void (*release)(void* bytes);
  /// Leaves; every process does.
  const char* (*close)();
};

/// The one symbol of such a library.
const MnemeTransportV1* mneme_transport_v1();
}
