#include "pipelines/csv_reader.h"

#include "core/error.h"

namespace strobe::pipelines {

std::string CsvReader::place() const { return fmt::format("{}:{}:{}", file_, line_, at_ - line_begin_ + 1); }

bool CsvReader::at_line_end() const {
  const std::string_view rest = text_.substr(at_);
  return rest.starts_with('\n') || rest.starts_with("\r\n");
}

void CsvReader::end_line() {
  at_ += text_[at_] == '\r' ? 2 : 1;
  ++line_;
  line_begin_ = at_;
}

void CsvReader::note(CsvRow& row, std::string_view message) const {
  if (row.error.empty()) row.error = fmt::format("{}: {}", place(), message);
}

bool CsvReader::next(CsvRow& row) {
  while (at_ < text_.size() && at_line_end()) end_line();
  if (at_ == text_.size()) return false;
  row = {};
  row.place = fmt::format("{}:{}", file_, line_);
  while (true) {
    read_cell(row);
    if (at_ == text_.size()) return true;
    if (text_[at_] != ',') break;
    ++at_;
  }
  end_line();
  return true;
}

void CsvReader::read_cell(CsvRow& row) {
  CsvCell cell;
  const bool is_kept = ++row.num_cells <= kMaxCsvCells;
  if (is_kept) cell.place = place();
  if (at_ < text_.size() && text_[at_] == '"') {
    read_quoted(row, cell.text);
    if (at_ < text_.size() && text_[at_] != ',' && !at_line_end()) note(row, "text behind the closing quote");
  }
  read_bare(row, cell.text);
  if (is_kept) row.cells.push_back(std::move(cell));
}

void CsvReader::read_quoted(CsvRow& row, std::string& cell) {
  const std::string begin = place();
  for (++at_; at_ < text_.size(); ++at_) {
    if (text_[at_] == '"') {
      ++at_;
      if (at_ == text_.size() || text_[at_] != '"') return;
    } else if (text_[at_] == '\n') {
      ++line_;
      line_begin_ = at_ + 1;
    }
    cell += text_[at_];
  }
  throw ConfigError(row.error.empty() ? begin + ": the quote is not closed" : row.error);
}

void CsvReader::read_bare(CsvRow& row, std::string& cell) {
  for (; at_ < text_.size() && text_[at_] != ',' && !at_line_end(); ++at_) {
    if (text_[at_] == '"') note(row, "a quote in a cell that is not quoted; quote the cell and double the quote");
    if (text_[at_] == '\r') note(row, "a carriage return inside the line; lines end in \\n or \\r\\n");
    cell += text_[at_];
  }
}

}  // namespace strobe::pipelines
