//! What a request needs of a model beyond text.

use crate::config::Capability;

/// Something that not every model can do, or that not every model's price covers. In the order in which a refusal
/// names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// Tools.
    Tools,
    /// Output that follows a JSON Schema.
    JsonSchema,
    /// Images in messages.
    Image,
    /// Audio in messages.
    AudioInput,
    /// Video in messages.
    Video,
    /// Files in messages.
    File,
    /// A content part of a kind that the gateway does not know.
    OtherContent,
    /// A tool that searches the web at the provider.
    SearchTool,
    /// Another tool that is not the caller's function.
    OtherTool,
    /// `modalities` with audio.
    AudioModality,
    /// `audio`, the voice and format of the output.
    AudioVoice,
    /// `modalities` with a kind that the gateway does not know.
    OtherModality,
    /// OpenAI's `web_search_options`.
    WebSearchOptions,
    /// xAI's `search_parameters`.
    SearchParameters,
    /// Qwen's `enable_search`.
    EnableSearch,
    /// OpenRouter's `plugins`, one of which searches the web.
    Plugins,
    /// vLLM's `mm_processor_kwargs`.
    ProcessorOptions,
    /// vLLM's `media_io_kwargs`.
    MediaOptions,
    /// `web_search`, as some servers call it.
    WebSearch,
    /// Perplexity's `search_mode`.
    SearchMode,
}

impl Need {
    const ALL: [Self; 20] = [
        Self::Tools,
        Self::JsonSchema,
        Self::Image,
        Self::AudioInput,
        Self::Video,
        Self::File,
        Self::OtherContent,
        Self::SearchTool,
        Self::OtherTool,
        Self::AudioModality,
        Self::AudioVoice,
        Self::OtherModality,
        Self::WebSearchOptions,
        Self::SearchParameters,
        Self::EnableSearch,
        Self::Plugins,
        Self::ProcessorOptions,
        Self::MediaOptions,
        Self::WebSearch,
        Self::SearchMode,
    ];

    /// Returns the need that a top-level field has by its presence.
    pub fn of_field(name: &str) -> Option<Self> {
        Some(match name {
            "audio" => Self::AudioVoice,
            "web_search_options" => Self::WebSearchOptions,
            "search_parameters" => Self::SearchParameters,
            "enable_search" => Self::EnableSearch,
            "plugins" => Self::Plugins,
            "mm_processor_kwargs" => Self::ProcessorOptions,
            "media_io_kwargs" => Self::MediaOptions,
            "web_search" => Self::WebSearch,
            "search_mode" => Self::SearchMode,
            _ => return None,
        })
    }

    /// Returns the need of a content part with this type, or with a member of this name. The names are those of OpenAI,
    /// Anthropic, Mistral, Qwen and vLLM.
    pub fn of_medium(name: &[u8]) -> Option<Self> {
        Some(match name {
            b"image_url" | b"image" | b"input_image" | b"image_embeds" | b"image_pil" => Self::Image,
            b"input_audio" | b"audio_url" | b"audio" | b"audio_embeds" => Self::AudioInput,
            b"video_url" | b"video" | b"input_video" | b"video_embeds" => Self::Video,
            b"file" | b"input_file" | b"file_id" | b"file_url" | b"file_data" | b"document" | b"document_url" => {
                Self::File
            }
            _ => return None,
        })
    }

    /// Returns the need of a tool of this type; `None` if it is the caller's function.
    pub fn of_tool(kind: &[u8]) -> Option<Self> {
        match kind {
            b"function" | b"custom" => None,
            kind if Self::searches(kind) => Some(Self::SearchTool),
            _ => Some(Self::OtherTool),
        }
    }

    /// Returns whether a tool of this type or name searches the web: `web_search_preview`, `openrouter:web_search`,
    /// `googleSearch`, `x_search`, …. `kind`: in lower case. Searches in the caller's own files and tools do not count.
    pub fn searches(kind: &[u8]) -> bool {
        let find = |part: &[u8]| memchr::memmem::find(kind, part);
        find(b"search").is_some_and(|at| {
            let before = kind.get(..at).unwrap_or_default();
            let before = before.strip_suffix(b"_").or(before.strip_suffix(b"-")).unwrap_or(before);
            !before.ends_with(b"file") && !before.ends_with(b"tool")
        })
    }

    /// Returns the capability that a model must have.
    pub fn capability(self) -> Capability {
        match self {
            Self::Tools => Capability::Tools,
            Self::JsonSchema => Capability::JsonSchema,
            Self::Image => Capability::Vision,
            Self::AudioInput | Self::AudioModality | Self::AudioVoice => Capability::Audio,
            Self::Video => Capability::Video,
            Self::File => Capability::Files,
            Self::SearchTool
            | Self::WebSearchOptions
            | Self::SearchParameters
            | Self::EnableSearch
            | Self::Plugins
            | Self::WebSearch
            | Self::SearchMode => Capability::WebSearch,
            Self::ProcessorOptions | Self::MediaOptions => Capability::MediaOptions,
            Self::OtherContent | Self::OtherTool | Self::OtherModality => Capability::Other,
        }
    }

    /// Returns the request field that has the need, and what it is, for an error.
    pub fn named(self) -> (&'static str, &'static str) {
        match self {
            Self::Tools => ("tools", "tools"),
            Self::JsonSchema => ("response_format", "JSON Schema output"),
            Self::Image => ("messages", "images"),
            Self::AudioInput => ("messages", "audio"),
            Self::Video => ("messages", "video"),
            Self::File => ("messages", "files"),
            Self::OtherContent => ("messages", "content parts of this type"),
            Self::SearchTool => ("tools", "web search"),
            Self::OtherTool => ("tools", "tools of this type"),
            Self::AudioModality => ("modalities", "audio output"),
            Self::AudioVoice => ("audio", "audio output"),
            Self::OtherModality => ("modalities", "these output modalities"),
            Self::WebSearchOptions => ("web_search_options", "web search"),
            Self::SearchParameters => ("search_parameters", "web search"),
            Self::EnableSearch => ("enable_search", "web search"),
            Self::Plugins => ("plugins", "plugins"),
            Self::ProcessorOptions => ("mm_processor_kwargs", "options of the media processor"),
            Self::MediaOptions => ("media_io_kwargs", "options of the media processor"),
            Self::WebSearch => ("web_search", "web search"),
            Self::SearchMode => ("search_mode", "web search"),
        }
    }

    /// Returns the top-level field without which the need is gone, if there is one.
    pub fn field(self) -> Option<&'static str> {
        (self as u32 >= Self::AudioModality as u32).then_some(self.named().0)
    }

    fn bit(self) -> u32 {
        1 << self as u32
    }
}

/// The needs of a request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Needs(u32);

impl Needs {
    const FIELDS: u32 = u32::MAX << Need::AudioModality as u32;
    const SEARCH: u32 = of(&[
        Need::SearchTool,
        Need::WebSearchOptions,
        Need::SearchParameters,
        Need::EnableSearch,
        Need::Plugins,
        Need::WebSearch,
        Need::SearchMode,
    ]);
    const AUDIO_INPUT: u32 = of(&[Need::AudioInput, Need::Video, Need::File, Need::OtherContent]);
    const AUDIO_OUTPUT: u32 = of(&[Need::AudioModality, Need::AudioVoice, Need::OtherModality]);

    /// Adds a need.
    pub fn add(&mut self, need: Need) {
        self.0 |= need.bit();
    }

    /// Returns whether the set is empty.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Returns whether this need is among them.
    pub fn has(self, need: Need) -> bool {
        self.0 & need.bit() != 0
    }

    /// Returns the needs for which `keeps` holds.
    #[must_use]
    pub fn keep(self, keeps: impl Fn(Need) -> bool) -> Self {
        Self(self.iter().filter(|need| keeps(*need)).fold(0, |all, need| all | need.bit()))
    }

    /// Returns the needs one by one.
    pub fn iter(self) -> impl Iterator<Item = Need> {
        // Most requests have none, or tools.
        let all: &[Need] = if self.is_empty() { &[] } else { &Need::ALL };
        all.iter().copied().filter(move |need| self.has(*need))
    }

    /// Returns whether any need is that of a top-level field.
    pub fn has_fields(self) -> bool {
        self.0 & Self::FIELDS != 0
    }

    /// Returns whether the provider searches the web for the request.
    pub fn searches(self) -> bool {
        self.0 & Self::SEARCH != 0
    }

    /// Returns whether input tokens may be those of audio. A video has sound.
    pub fn may_hear(self) -> bool {
        self.0 & Self::AUDIO_INPUT != 0
    }

    /// Returns whether output tokens may be those of audio.
    pub fn may_speak(self) -> bool {
        self.0 & Self::AUDIO_OUTPUT != 0
    }
}

const fn of(needs: &[Need]) -> u32 {
    match needs {
        [] => 0,
        [first, rest @ ..] => 1 << *first as u32 | of(rest),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_need_has_its_place_in_the_list_and_a_field_needs_what_its_name_says() {
        for (place, need) in Need::ALL.into_iter().enumerate() {
            assert_eq!(need as usize, place);
            assert!(need.field().is_none_or(|field| field == "modalities" || Need::of_field(field) == Some(need)));
        }
        let mut needs = Needs::default();
        assert!(needs.iter().next().is_none() && !needs.has_fields());
        needs.add(Need::Video);
        assert!(needs.may_hear() && !needs.has_fields() && !needs.searches() && !needs.may_speak());
        needs.add(Need::EnableSearch);
        needs.add(Need::OtherModality);
        assert!(needs.has_fields() && needs.searches() && needs.may_speak());
        let kept = needs.keep(|need| need.field().is_none());
        assert_eq!(kept.iter().collect::<Vec<_>>(), [Need::Video]);
    }
}
