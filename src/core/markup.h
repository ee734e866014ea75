// Text inside XML and HTML: what pictures and reports are written with.
#pragma once

#include <string>
#include <string_view>

namespace mneme {

/// `text` as the content of an element or of an attribute in double quotes, in XML and HTML: & < > " become
/// entities, and control characters, which XML cannot hold even as entities, become spaces (line ends stay).
/// Any other byte is kept, so valid UTF-8 stays valid. (Chat templates have an `escape` of their own:
/// jinja2's, with other entities.)
std::string escape_markup(std::string_view text);

}  // namespace mneme
