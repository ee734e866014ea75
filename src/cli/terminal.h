// What the terminal is, and text made for people: sizes, times, tables. Data goes to stdout, all else to
// stderr.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "core/json.h"

namespace mneme::cli {

/// True if stderr is a terminal that can redraw a line (TERM is not "dumb").
bool stderr_is_terminal();
bool stdout_is_terminal();
bool stdin_is_terminal();
/// Columns of the terminal at stderr; 80 if unknown.
int terminal_width();
/// True if text on stderr may carry colours: a terminal, and NO_COLOR is not set.
bool colours();

/// Writes to stdout. Throws Error(io) if it cannot be written, e.g. because the disk is full.
void print(std::string_view text);
/// Flushes stdout, with the same error.
void flush_output();
/// One JSON document and a newline. Strings that are not UTF-8 get U+FFFD in place of bad bytes.
void print_json(const Json& json);

/// "90.4 MB": decimal units, three digits.
std::string human_bytes(double bytes);
/// "2:05", "1:02:05".
std::string human_seconds(double seconds);
/// Rows of equal length as aligned columns; the first row is the heading. Columns whose cells are numbers are
/// set flush right.
std::string table(const std::vector<std::vector<std::string>>& rows);
/// A text in one line: control characters become spaces.
std::string one_line(std::string_view text);

}  // namespace mneme::cli
