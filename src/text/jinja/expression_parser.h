// Expressions, by recursive descent in jinja2's order of precedence, loosest first:
// if-else, or, and, not, comparisons, + -, ~, * / // %, **, unary - +, postfix . [] (), filters and tests.
#pragma once
#include <functional>
#include <initializer_list>
#include <string>
#include <vector>

#include "text/jinja/token_stream.h"

namespace mneme::jinja {

class ExpressionParser {
 public:
  ExpressionParser(TokenStream& tokens, int& depth) : tokens_(tokens), depth_(depth) {}

  ExprPtr expression(bool with_conditional = true);
  /// One expression, or several separated by commas, which make a tuple.
  ExprPtr tuple(bool with_conditional = true, bool in_parentheses = false);
  /// `name | name(...) | ...` after a block tag; items[0] of the innermost is null.
  ExprPtr filter_chain();

 private:
  using Rule = ExprPtr (ExpressionParser::*)();
  ExprPtr conditional();
  ExprPtr logical_or();
  ExprPtr logical_and();
  ExprPtr logical_not();
  ExprPtr comparison();
  ExprPtr sum();
  ExprPtr concat();
  ExprPtr product();
  ExprPtr power();
  ExprPtr unary(bool with_filters);
  ExprPtr unary_with_filters() { return unary(true); }
  ExprPtr primary();
  ExprPtr primary_name();
  ExprPtr list();
  ExprPtr dict();
  ExprPtr postfix(ExprPtr expr);
  ExprPtr subscript(ExprPtr object);
  ExprPtr filters(ExprPtr expr);
  ExprPtr filter(ExprPtr input);
  ExprPtr test(ExprPtr input);
  void arguments(Expr& call);
  bool at_tuple_end() const;
  ExprPtr binary_chain(Rule operand, std::initializer_list<std::string_view> ops);

  ExprPtr make(ExprKind kind, int line, std::vector<ExprPtr> items = {}) const;
  /// Recomputes the depth after items or named arguments were added; refuses trees that are too deep.
  void settle(Expr& expr) const;

  TokenStream& tokens_;
  int& depth_;
};

/// std::vector<ExprPtr> from its arguments (an initializer list cannot hold unique_ptr).
template <class... Exprs>
std::vector<ExprPtr> items_of(Exprs... exprs) {
  std::vector<ExprPtr> out;
  (out.push_back(std::move(exprs)), ...);
  return out;
}

}  // namespace mneme::jinja
