// The syntax tree of a template. Built once by the parser, read-only afterwards.
#pragma once
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "text/jinja/value.h"

namespace mneme::jinja {

struct Expr;
using ExprPtr = std::unique_ptr<Expr>;

enum class ExprKind : uint8_t {
  constant,   // value
  name,       // text
  list,       // items
  tuple,      // items
  dict,       // items: key, value, key, value, ...
  attribute,  // items[0] . text
  subscript,  // items[0] [ items[1] ]
  slice,      // items[0] [ items[1] : items[2] : items[3] ], each of which may be null
  call,       // items[0] ( items[1...], named )
  spread,     // * items[0], the last of the arguments without a name
  filter,     // items[0] | text ( items[1...], named ); items[0] is null at the head of {% filter %}
  test,       // items[0] is text ( items[1...], named )
  negate,     // - items[0]
  plus,       // + items[0]
  logical_not,
  logical_and,
  logical_or,
  binary,      // items[0] text items[1], for + - * / // % **
  concat,      // items joined as text (~)
  compare,     // items[0] ops[0] items[1] ops[1] items[2] ...
  conditional  // items[0] if items[1] else items[2], which may be null
};

struct Expr {
  ExprKind kind = ExprKind::constant;
  int line = 1;
  int depth = 1;  // of the tree below, bounded by the parser
  std::string text;
  Value value;
  std::vector<ExprPtr> items;
  std::vector<std::pair<std::string, ExprPtr>> named;
  std::vector<std::string> ops;
};

/// Where an assignment or a loop puts a value: a name, a namespace attribute, or several of these.
struct Target {
  std::string name;
  std::string attribute;  // "" unless `name.attribute`
  std::vector<Target> parts;
  bool unpack = false;
};

struct Statement;
using Block = std::vector<std::unique_ptr<Statement>>;

/// A macro, or the body of {% call %}.
struct Macro {
  std::string name;
  std::vector<std::string> parameters;
  std::vector<ExprPtr> defaults;  // of the last parameters
  Block body;
};

enum class StatementKind : uint8_t {
  text,          // text
  output,        // exprs[0]
  set,           // target = exprs[0]
  set_block,     // target = rendered body, through the filter exprs[0] if not null
  if_chain,      // exprs[i] guards blocks[i]; one more block is the else
  for_loop,      // target in exprs[0] if exprs[1] (may be null): blocks[0] else blocks[1]
  macro,         // macro
  call_block,    // exprs[0] is the call, macro the body
  filter_block,  // exprs[0] is the filter, blocks[0] the body
  with,          // targets[i] = exprs[i] around blocks[0]
  generation,    // blocks[0], in a scope of its own
  loop_break,
  loop_continue
};

struct Statement {
  StatementKind kind = StatementKind::text;
  int line = 1;
  std::string text;
  Target target;
  std::vector<Target> targets;
  std::vector<ExprPtr> exprs;
  std::vector<Block> blocks;
  std::unique_ptr<Macro> macro;
};

}  // namespace mneme::jinja
