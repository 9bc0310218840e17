// Rows of comma-separated text, RFC 4180.
//
// Contract  Cells in double quotes may hold commas, line ends and doubled quotes. Rows end in \n or \r\n. Lines without
//           any character are no rows. Lines and columns count from 1, columns in bytes.
// Errors    A row that is not written by these rules keeps a message; ConfigError for a quote that is never closed,
//           since nobody knows where its row ends.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace strobe::pipelines {

struct CsvCell {
  std::string text;
  std::string place;  // "prompts.csv:3:5"
};

struct CsvRow {
  std::vector<CsvCell> cells;  // the first `kMaxCsvCells`
  size_t num_cells = 0;
  std::string place;  // "prompts.csv:3"
  std::string error;  // whole message
};

inline constexpr size_t kMaxCsvCells = 256;

class CsvReader {
 public:
  CsvReader(std::string_view text, std::string file) : text_(text), file_(std::move(file)) {}
  // False behind the last row.
  bool next(CsvRow& row);

 private:
  std::string place() const;
  bool at_line_end() const;
  void end_line();
  void read_cell(CsvRow& row);
  void read_quoted(CsvRow& row, std::string& cell);
  void read_bare(CsvRow& row, std::string& cell);
  void note(CsvRow& row, std::string_view message) const;

  std::string_view text_;
  std::string file_;
  size_t at_ = 0;
  size_t line_ = 1;
  size_t line_begin_ = 0;
};

}  // namespace strobe::pipelines
