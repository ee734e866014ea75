#include "cli/conversation.h"

#include <algorithm>
#include <array>
#include <string_view>

#include "core/fail.h"
#include "core/file.h"

namespace mneme::cli {
namespace {

constexpr uint64_t kMostBytes = uint64_t{1} << 30;
constexpr std::array<std::string_view, 4> kRoles = {"system", "user", "assistant", "tool"};

void check_message(const OrderedJson& message, size_t number, const std::string& file) {
  require(message.is_object(), ErrorCode::corrupt,
          "{}: message {} is no object with \"role\" and \"content\"", file, number);
  const auto role = message.find("role");
  const bool known = role != message.end() && role->is_string() &&
                     std::find(kRoles.begin(), kRoles.end(), role->get<std::string>()) != kRoles.end();
  require(known, ErrorCode::corrupt, "{}: message {} has no \"role\" of system, user, assistant or tool",
          file, number);
  const auto content = message.find("content");
  require(content != message.end() && content->is_string(), ErrorCode::corrupt,
          "{}: message {} has no \"content\" that is a text", file, number);
  require(number == 1 || *role != "system", ErrorCode::corrupt,
          "{}: message {} is of role system; only the first one can be", file, number);
}

}  // namespace

void Conversation::add(const std::string& role, const std::string& content) {
  messages_.push_back({{"role", role}, {"content", content}});
}

void Conversation::drop_last() {
  if (!messages_.empty()) messages_.erase(messages_.size() - 1);
}

std::string Conversation::system() const {
  if (messages_.empty() || messages_[0]["role"] != "system") return {};
  return messages_[0]["content"];
}

void Conversation::set_system(const std::string& text) {
  if (!messages_.empty() && messages_[0]["role"] == "system") messages_.erase(0);
  if (!text.empty()) messages_.insert(messages_.begin(), OrderedJson{{"role", "system"}, {"content", text}});
}

void Conversation::reset() {
  const std::string text = system();
  messages_ = OrderedJson::array();
  set_system(text);
}

std::string Conversation::to_text(const std::string& model) const {
  OrderedJson document;
  document["mneme_chat"] = 1;
  document["model"] = model;
  document["messages"] = messages_;
  return document.dump(2, ' ', false, OrderedJson::error_handler_t::replace) + "\n";
}

void Conversation::save(const fs::path& path, const std::string& model) const {
  AtomicFile file(path);
  file.write(to_text(model));
  file.commit();
}

Conversation Conversation::load(const fs::path& path) {
  return from_text(read_text_file(path, kMostBytes), path.string());
}

Conversation Conversation::from_text(std::string_view text, const std::string& name) {
  const OrderedJson document = parse_ordered_json(text, name);
  const OrderedJson* messages = &document;
  if (document.is_object()) {
    const auto version = document.find("mneme_chat");
    require(version != document.end() && *version == 1 && document.contains("messages"), ErrorCode::corrupt,
            "{} is no conversation: it needs \"mneme_chat\": 1 and \"messages\"", name);
    messages = &document["messages"];
  }
  require(messages->is_array(), ErrorCode::corrupt, "{} is no conversation: the messages are no list", name);
  size_t number = 0;
  for (const OrderedJson& message : *messages) check_message(message, ++number, name);
  Conversation out;
  out.messages_ = *messages;
  return out;
}

}  // namespace mneme::cli
