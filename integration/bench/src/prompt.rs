//! Prompts as people write them, JSON-escaped as a client library sends them.

/// The text of a prompt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Text {
    /// English prose: a line break about every 80 characters, and an occasional quotation mark.
    English,
    /// Vietnamese and Chinese, as UTF-8, which the official Python client does not escape.
    Asian,
}

const ENGLISH: [&str; 6] = [
    "The engineer asked whether the northern line could carry heavier trains before winter.\\n",
    "A pointsman, she wrote, is \\\"the one who sets the track\\\" and then steps back to let the train pass.\\n",
    "Summarise the report below in five sentences, and name every figure that the author leaves unexplained.\\n",
    "Nothing in the timetable explains why the 7.40 waits at the junction for eleven minutes each morning.\\n",
    "It was raining; the signal lamps burned through the haze, and the telegraph said only: proceed with care.\\n\\n",
    "Compare both proposals by cost, by risk and by the time until the first passengers can use the new platform.\\n",
];

const ASIAN: [&str; 4] = [
    "Người bẻ ghi đặt đường ray để mỗi chuyến tàu đi đúng hướng, rồi lùi lại cho tàu qua.\\n",
    "请用五句话总结下面的报告,并指出作者没有解释的每一个数字。\\n",
    "Hãy so sánh hai phương án theo chi phí, rủi ro và thời gian hoàn thành.\\n",
    "时刻表没有说明为什么七点四十分的列车每天早上要在道岔等十一分钟。\\n",
];

impl Text {
    /// Returns almost `bytes` bytes of the text, ready to put between quotation marks.
    pub fn escaped(self, bytes: usize) -> String {
        let sentences: &[&str] = if self == Self::English { &ENGLISH } else { &ASIAN };
        let mut text = String::with_capacity(bytes + 128);
        for sentence in sentences.iter().cycle() {
            if text.len() + sentence.len() > bytes {
                break;
            }
            text.push_str(sentence);
        }
        text
    }
}
