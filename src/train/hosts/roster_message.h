// What processes of a run say to each other on the roster's connections, as bytes: a length (u32), then kind
// (u8), rank (u32), the length of the key (u32), the key, and the value. Little-endian.
#pragma once
#include <cstdint>
#include <optional>
#include <string>

namespace mneme::train {

struct RosterMessage {
  enum class Kind : uint8_t {
    hello,    // rank, key: the run, value: number of processes
    welcome,  // all are there
    refused,  // value: why
    set,      // key, value
    alive,    // nothing but a sign of life
    lost,     // rank, value: why
    goodbye   // rank: ended as it should
  };
  Kind kind = Kind::alive;
  uint32_t rank = 0;
  std::string key, value;
};

std::string encode(const RosterMessage& message);

/// Takes the first whole message off `buffer`. Empty where none has come yet; `bad` is set for bytes that are
/// no message (a stranger at the port).
std::optional<RosterMessage> take_message(std::string& buffer, bool& bad);

}  // namespace mneme::train
