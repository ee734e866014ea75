#include "text/jinja/expression_parser.h"

#include <algorithm>

#include "text/jinja/builtins.h"
#include "text/jinja/parser.h"

namespace mneme::jinja {

ExprPtr ExpressionParser::make(ExprKind kind, int line, std::vector<ExprPtr> items) const {
  auto expr = std::make_unique<Expr>();
  expr->kind = kind;
  expr->line = line;
  expr->items = std::move(items);
  settle(*expr);
  return expr;
}

void ExpressionParser::settle(Expr& expr) const {
  expr.depth = 1;
  for (const ExprPtr& item : expr.items)
    if (item) expr.depth = std::max(expr.depth, item->depth + 1);
  for (const auto& [name, value] : expr.named) expr.depth = std::max(expr.depth, value->depth + 1);
  require(expr.depth <= kMaxParseDepth, ErrorCode::limit,
          "chat template line {}: an expression is more than {} levels deep", expr.line, kMaxParseDepth);
}

ExprPtr ExpressionParser::expression(bool with_conditional) {
  const DepthGuard guard(depth_, kMaxParserRecursion, tokens_);
  return with_conditional ? conditional() : logical_or();
}

ExprPtr ExpressionParser::conditional() {
  const DepthGuard guard(depth_, kMaxParserRecursion, tokens_);
  ExprPtr value = logical_or();
  while (tokens_.at_name("if")) {
    const int line = tokens_.next().line;
    ExprPtr test = logical_or();
    ExprPtr otherwise = tokens_.skip_name("else") ? conditional() : nullptr;
    value =
        make(ExprKind::conditional, line, items_of(std::move(value), std::move(test), std::move(otherwise)));
  }
  return value;
}

ExprPtr ExpressionParser::logical_or() {
  ExprPtr left = logical_and();
  while (tokens_.at_name("or")) {
    const int line = tokens_.next().line;
    ExprPtr right = logical_and();
    left = make(ExprKind::logical_or, line, items_of(std::move(left), std::move(right)));
  }
  return left;
}

ExprPtr ExpressionParser::logical_and() {
  ExprPtr left = logical_not();
  while (tokens_.at_name("and")) {
    const int line = tokens_.next().line;
    ExprPtr right = logical_not();
    left = make(ExprKind::logical_and, line, items_of(std::move(left), std::move(right)));
  }
  return left;
}

ExprPtr ExpressionParser::logical_not() {
  const DepthGuard guard(depth_, kMaxParserRecursion, tokens_);
  if (!tokens_.at_name("not")) return comparison();
  const int line = tokens_.next().line;
  return make(ExprKind::logical_not, line, items_of(logical_not()));
}

ExprPtr ExpressionParser::comparison() {
  ExprPtr first = sum();
  std::vector<std::string> ops;
  std::vector<ExprPtr> operands;
  const int line = tokens_.peek().line;
  for (;;) {
    std::string op;
    for (const std::string_view known : {"==", "!=", "<", "<=", ">", ">="})
      if (tokens_.at_op(known)) op = known;
    if (tokens_.at_name("in")) op = "in";
    if (tokens_.at_name("not") && tokens_.at_name("in", 1)) op = "not in";
    if (op.empty()) break;
    if (op == "not in") tokens_.next();
    tokens_.next();
    ops.push_back(op);
    operands.push_back(sum());
  }
  if (ops.empty()) return first;
  operands.insert(operands.begin(), std::move(first));
  ExprPtr expr = make(ExprKind::compare, line, std::move(operands));
  expr->ops = std::move(ops);
  return expr;
}

ExprPtr ExpressionParser::binary_chain(Rule operand, std::initializer_list<std::string_view> ops) {
  ExprPtr left = (this->*operand)();
  for (;;) {
    const auto op =
        std::find_if(ops.begin(), ops.end(), [&](std::string_view known) { return tokens_.at_op(known); });
    if (op == ops.end()) return left;
    const int line = tokens_.next().line;
    ExprPtr right = (this->*operand)();
    // Markup("...") + text would escape the text; the subset has no Markup.
    for (const ExprPtr& side : {std::cref(left), std::cref(right)})
      if (side->kind == ExprKind::filter &&
          (side->text == "safe" || side->text == "escape" || side->text == "e"))
        tokens_.unsupported(line, fmt::format("'{}' after the filter '{}'", *op, side->text));
    left = make(ExprKind::binary, line, items_of(std::move(left), std::move(right)));
    left->text = *op;
  }
}

ExprPtr ExpressionParser::sum() {
  return binary_chain(&ExpressionParser::concat, {"+", "-"});
}

ExprPtr ExpressionParser::concat() {
  std::vector<ExprPtr> parts = items_of(product());
  const int line = tokens_.peek().line;
  while (tokens_.skip_op("~")) parts.push_back(product());
  if (parts.size() == 1) return std::move(parts.front());
  return make(ExprKind::concat, line, std::move(parts));
}

ExprPtr ExpressionParser::product() {
  return binary_chain(&ExpressionParser::power, {"*", "/", "//", "%"});
}

ExprPtr ExpressionParser::power() {
  return binary_chain(&ExpressionParser::unary_with_filters, {"**"});
}

ExprPtr ExpressionParser::unary(bool with_filters) {
  const DepthGuard guard(depth_, kMaxParserRecursion, tokens_);
  ExprPtr expr;
  if (tokens_.at_op("-") || tokens_.at_op("+")) {
    const Token& sign = tokens_.next();
    expr = make(sign.text == "-" ? ExprKind::negate : ExprKind::plus, sign.line, items_of(unary(false)));
  } else {
    expr = primary();
  }
  expr = postfix(std::move(expr));
  return with_filters ? filters(std::move(expr)) : std::move(expr);
}

ExprPtr ExpressionParser::primary() {
  const Token& token = tokens_.peek();
  ExprPtr expr = make(ExprKind::constant, token.line);
  switch (token.kind) {
    case TokenKind::name:
      return primary_name();
    case TokenKind::string: {
      std::string text;
      while (tokens_.peek().kind == TokenKind::string) text += tokens_.next().text;
      expr->value = Value(std::move(text));
      return expr;
    }
    case TokenKind::integer:
      expr->value = Value(tokens_.next().integer);
      return expr;
    case TokenKind::real:
      expr->value = Value(tokens_.next().real);
      return expr;
    default:
      break;
  }
  if (tokens_.at_op("[")) return list();
  if (tokens_.at_op("{")) return dict();
  if (!tokens_.skip_op("("))
    tokens_.bad(fmt::format("expected an expression but found {}", tokens_.describe()));
  expr = tuple(true, true);
  tokens_.expect_op(")");
  return expr;
}

ExprPtr ExpressionParser::primary_name() {
  const Token& token = tokens_.next();
  ExprPtr expr = make(ExprKind::constant, token.line);
  if (token.text == "true" || token.text == "True") {
    expr->value = Value(true);
  } else if (token.text == "false" || token.text == "False") {
    expr->value = Value(false);
  } else if (token.text == "none" || token.text == "None") {
    expr->value = Value(None{});
  } else {
    if (token.text == "varargs" || token.text == "kwargs" || token.text == "self")
      tokens_.unsupported(token.line, fmt::format("the special variable '{}'", token.text));
    expr->kind = ExprKind::name;
    expr->text = token.text;
  }
  return expr;
}

bool ExpressionParser::at_tuple_end() const {
  const TokenKind kind = tokens_.peek().kind;
  return kind == TokenKind::print_end || kind == TokenKind::block_end || tokens_.at_op(")");
}

ExprPtr ExpressionParser::tuple(bool with_conditional, bool in_parentheses) {
  const int line = tokens_.peek().line;
  std::vector<ExprPtr> items;
  bool is_tuple = false;
  while (!at_tuple_end()) {
    items.push_back(expression(with_conditional));
    if (!tokens_.skip_op(",")) break;
    is_tuple = true;
  }
  if (!is_tuple && items.size() == 1) return std::move(items.front());
  if (!is_tuple && !in_parentheses)
    tokens_.bad(fmt::format("expected an expression but found {}", tokens_.describe()));
  return make(ExprKind::tuple, line, std::move(items));
}

ExprPtr ExpressionParser::list() {
  const int line = tokens_.next().line;
  std::vector<ExprPtr> items;
  while (!tokens_.at_op("]")) {
    items.push_back(expression());
    if (!tokens_.skip_op(",")) break;
  }
  tokens_.expect_op("]");
  return make(ExprKind::list, line, std::move(items));
}

ExprPtr ExpressionParser::dict() {
  const int line = tokens_.next().line;
  std::vector<ExprPtr> items;
  while (!tokens_.at_op("}")) {
    items.push_back(expression());
    tokens_.expect_op(":");
    items.push_back(expression());
    if (!tokens_.skip_op(",")) break;
  }
  tokens_.expect_op("}");
  return make(ExprKind::dict, line, std::move(items));
}

ExprPtr ExpressionParser::postfix(ExprPtr expr) {
  for (;;) {
    if (tokens_.at_op(".") || tokens_.at_op("[")) {
      expr = subscript(std::move(expr));
    } else if (tokens_.at_op("(")) {
      expr = make(ExprKind::call, tokens_.peek().line, items_of(std::move(expr)));
      arguments(*expr);
    } else {
      return expr;
    }
  }
}

ExprPtr ExpressionParser::subscript(ExprPtr object) {
  const int line = tokens_.peek().line;
  if (tokens_.skip_op(".")) {
    if (tokens_.peek().kind == TokenKind::integer) {
      ExprPtr index = make(ExprKind::constant, line);
      index->value = Value(tokens_.next().integer);
      return make(ExprKind::subscript, line, items_of(std::move(object), std::move(index)));
    }
    ExprPtr expr = make(ExprKind::attribute, line, items_of(std::move(object)));
    expr->text = tokens_.expect_name();
    return expr;
  }
  tokens_.expect_op("[");
  const auto part = [&]() -> ExprPtr {
    return tokens_.at_op(":") || tokens_.at_op("]") || tokens_.at_op(",") ? nullptr : expression();
  };
  ExprPtr first = part();
  if (!tokens_.skip_op(":")) {
    if (!first) tokens_.bad("an index [] is empty");
    if (tokens_.at_op(",")) tokens_.unsupported(line, "an index of several parts");
    tokens_.expect_op("]");
    return make(ExprKind::subscript, line, items_of(std::move(object), std::move(first)));
  }
  ExprPtr last = part();
  ExprPtr step = tokens_.skip_op(":") ? part() : nullptr;
  if (tokens_.at_op(",")) tokens_.unsupported(line, "an index of several parts");
  tokens_.expect_op("]");
  return make(ExprKind::slice, line,
              items_of(std::move(object), std::move(first), std::move(last), std::move(step)));
}

void ExpressionParser::arguments(Expr& call) {
  const int line = tokens_.peek().line;
  tokens_.expect_op("(");
  while (!tokens_.at_op(")")) {
    if (tokens_.at_op("**")) tokens_.unsupported(line, "'**' before an argument");
    if (tokens_.skip_op("*")) {
      if (!call.items.empty() && call.items.back() && call.items.back()->kind == ExprKind::spread)
        tokens_.bad("'*' is given twice");
      call.items.push_back(make(ExprKind::spread, line, items_of(expression())));
      if (!tokens_.skip_op(",")) break;
      continue;
    }
    if (tokens_.peek().kind == TokenKind::name && tokens_.at_op("=", 1)) {
      std::string name = tokens_.next().text;
      tokens_.next();
      for (const auto& [other, value] : call.named)
        if (other == name) tokens_.bad(fmt::format("the argument '{}' is given twice", name));
      call.named.emplace_back(std::move(name), expression());
    } else {
      const bool spread = call.items.back() && call.items.back()->kind == ExprKind::spread;
      if (spread || !call.named.empty())
        tokens_.bad("an argument without a name follows one with a name or '*'");
      call.items.push_back(expression());
    }
    if (!tokens_.skip_op(",")) break;
  }
  tokens_.expect_op(")");
  settle(call);
}

ExprPtr ExpressionParser::filters(ExprPtr expr) {
  for (;;) {
    if (tokens_.at_op("|")) {
      expr = filter(std::move(expr));
    } else if (tokens_.at_name("is")) {
      expr = test(std::move(expr));
    } else if (tokens_.at_op("(")) {
      expr = make(ExprKind::call, tokens_.peek().line, items_of(std::move(expr)));
      arguments(*expr);
    } else {
      return expr;
    }
  }
}

ExprPtr ExpressionParser::filter(ExprPtr input) {
  const int line = tokens_.peek().line;
  tokens_.expect_op("|");
  ExprPtr expr = make(ExprKind::filter, line, items_of(std::move(input)));
  expr->text = tokens_.expect_name();
  if (!has_filter(expr->text)) tokens_.unsupported(line, fmt::format("the filter '{}'", expr->text));
  if (tokens_.at_op("(")) arguments(*expr);
  return expr;
}

ExprPtr ExpressionParser::filter_chain() {
  // The tag's first filter has no `|` before it.
  const int line = tokens_.peek().line;
  ExprPtr expr = make(ExprKind::filter, line, items_of(ExprPtr()));
  expr->text = tokens_.expect_name();
  if (!has_filter(expr->text)) tokens_.unsupported(line, fmt::format("the filter '{}'", expr->text));
  if (tokens_.at_op("(")) arguments(*expr);
  while (tokens_.at_op("|")) expr = filter(std::move(expr));
  return expr;
}

ExprPtr ExpressionParser::test(ExprPtr input) {
  const int line = tokens_.next().line;
  const bool negated = tokens_.skip_name("not");
  ExprPtr expr = make(ExprKind::test, line, items_of(std::move(input)));
  expr->text = tokens_.expect_name();
  if (!has_test(expr->text)) tokens_.unsupported(line, fmt::format("the test '{}'", expr->text));
  const TokenKind kind = tokens_.peek().kind;
  const bool literal = kind == TokenKind::name || kind == TokenKind::string || kind == TokenKind::integer ||
                       kind == TokenKind::real || tokens_.at_op("[") || tokens_.at_op("{");
  if (tokens_.at_op("(")) {
    arguments(*expr);
  } else if (literal && !tokens_.at_name("else") && !tokens_.at_name("or") && !tokens_.at_name("and")) {
    if (tokens_.at_name("is")) tokens_.bad("tests cannot be chained: 'is' follows 'is'");
    expr->items.push_back(postfix(primary()));
    settle(*expr);
  }
  return negated ? make(ExprKind::logical_not, line, items_of(std::move(expr))) : std::move(expr);
}

}  // namespace mneme::jinja
