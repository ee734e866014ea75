// A conversation: its messages, and the file that /save writes and /load reads:
// {"mneme_chat": 1, "model": "...", "messages": [{"role": "user", "content": "..."}, ...]}.
#pragma once
#include <filesystem>
#include <string>
#include <string_view>

#include "core/json.h"

namespace mneme::cli {

class Conversation {
 public:
  const OrderedJson& messages() const noexcept { return messages_; }
  bool empty() const noexcept { return messages_.empty(); }
  void add(const std::string& role, const std::string& content);
  /// Takes back the last message.
  void drop_last();
  /// Text of the system message; "" if there is none.
  std::string system() const;
  /// Sets the system message; "" removes it.
  void set_system(const std::string& text);
  /// Forgets everything but the system message.
  void reset();

  /// What save() writes, as text, and back; `name` is for messages.
  std::string to_text(const std::string& model) const;
  static Conversation from_text(std::string_view text, const std::string& name);
  /// Writes the file atomically. Throws Error(io).
  void save(const std::filesystem::path& path, const std::string& model) const;
  /// Reads what save() wrote, or a plain JSON list of messages. Throws Error: not_found, io, corrupt (with
  /// the number of the message and what is wrong with it), limit for a file above 1 GiB.
  static Conversation load(const std::filesystem::path& path);

 private:
  OrderedJson messages_ = OrderedJson::array();
};

}  // namespace mneme::cli
