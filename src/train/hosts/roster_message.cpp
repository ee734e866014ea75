#include "train/hosts/roster_message.h"

#include <cstring>

namespace mneme::train {
namespace {

constexpr uint32_t kLongest = 1u << 20;
constexpr uint32_t kFixed = 9;  // kind, rank and the key's length

void append(std::string& out, uint32_t number) {
  char bytes[4];
  std::memcpy(bytes, &number, 4);
  out.append(bytes, 4);
}

uint32_t number_at(const std::string& bytes, size_t place) {
  uint32_t number = 0;
  std::memcpy(&number, bytes.data() + place, 4);
  return number;
}

}  // namespace

std::string encode(const RosterMessage& message) {
  std::string out;
  append(out, static_cast<uint32_t>(kFixed + message.key.size() + message.value.size()));
  out.push_back(static_cast<char>(message.kind));
  append(out, message.rank);
  append(out, static_cast<uint32_t>(message.key.size()));
  return out + message.key + message.value;
}

std::optional<RosterMessage> take_message(std::string& buffer, bool& bad) {
  if (buffer.size() < 4) return std::nullopt;
  const uint32_t length = number_at(buffer, 0);
  if (length < kFixed || length > kLongest) {
    bad = true;
    return std::nullopt;
  }
  if (buffer.size() < 4 + size_t{length}) return std::nullopt;
  RosterMessage message;
  const auto kind = static_cast<uint8_t>(buffer[4]);
  const uint32_t key = number_at(buffer, 9);
  if (kind > static_cast<uint8_t>(RosterMessage::Kind::goodbye) || key > length - kFixed) {
    bad = true;
    return std::nullopt;
  }
  message.kind = static_cast<RosterMessage::Kind>(kind);
  message.rank = number_at(buffer, 5);
  message.key = buffer.substr(4 + kFixed, key);
  message.value = buffer.substr(4 + kFixed + key, length - kFixed - key);
  buffer.erase(0, 4 + size_t{length});
  return message;
}

}  // namespace mneme::train
