// Text inside XML and HTML: what pictures and reports are written with.
#pragma once

#include <span>
#include <string>
#include <string_view>

namespace mneme {

/// What stands for a character.
struct Entity {
  char character;
  std::string_view text;
};

/// `text` with each character that has an entity replaced by it. Any other byte is kept.
std::string replace_entities(std::string_view text, std::span<const Entity> entities);

/// `text` as the content of an element or of an attribute in double quotes, in XML and HTML: & < > " become
/// entities, and control characters, which XML cannot hold even as entities, become spaces (line ends stay).
/// Any other byte is kept, so valid UTF-8 stays valid. (Chat templates escape with
/// jinja2's entities: text/jinja/filters.cpp.)
std::string escape_markup(std::string_view text);

}  // namespace mneme
