// Tokens to syntax tree. The grammar is jinja2's, less the statements that need other files (include, import,
// extends, block) and the extensions that transformers does not load (do, trans); those are refused by line.
#pragma once
#include <string_view>

#include "text/jinja/ast.h"
#include "text/jinja/lexer.h"

namespace mneme::jinja {

/// Depth to which expressions and statements may nest.
inline constexpr int kMaxParseDepth = 200;
/// The same for the parser's own recursion, which takes up to four steps for one level of the tree.
inline constexpr int kMaxParserRecursion = 4 * kMaxParseDepth;

/// Throws Error(corrupt) for malformed templates and Error(unsupported) for constructs outside the subset,
/// naming the line and the construct.
Block parse_template(std::string_view source);

}  // namespace mneme::jinja
