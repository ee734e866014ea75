#include "core/markup.h"

#include <algorithm>
#include <array>

namespace mneme {

std::string replace_entities(std::string_view text, std::span<const Entity> entities) {
  std::string out;
  out.reserve(text.size());
  for (const char c : text) {
    const auto entity = std::ranges::find(entities, c, &Entity::character);
    if (entity == entities.end())
      out += c;
    else
      out += entity->text;
  }
  return out;
}

std::string escape_markup(std::string_view text) {
  static constexpr std::array kEntities{Entity{'&', "&amp;"}, Entity{'<', "&lt;"}, Entity{'>', "&gt;"},
                                        Entity{'"', "&quot;"}};
  std::string out = replace_entities(text, kEntities);
  std::ranges::replace_if(
      out, [](char c) { return static_cast<unsigned char>(c) < 0x20 && c != '\n'; }, ' ');
  return out;
}

}  // namespace mneme
