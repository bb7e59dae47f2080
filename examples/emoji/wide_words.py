"""The words of made-up captions: see `wide_captions.py`. No name of a glyph is among them."""

from __future__ import annotations


def _listed(text: str) -> tuple[str, ...]:
    return tuple(text.strip().replace("\n", "|").split("|"))


CALLS = _listed("""
draw|make|paint|give me|create|bring|kindly make|we need|we want|let me have|can we have|let us see|generate|design
put|print|render|produce|now for|today|next:|a request:|think of|imagine|there is|here is|look,|see|this is|it is
here we have|find|take|my wish:|what about|how about|do you have|send|prepare|add|try
""")
KINDS = _listed("""
emoji|picture|image|photo|drawing|painting|illustration|sticker|logo|symbol|sign|pictogram|graphic|render|cartoon
stamp|badge|figure|portrait|shot|depiction|print|version|glyph|mark|vector|doodle|artwork|miniature|representation
copy|sample|pixel art
""")
ADJECTIVES = _listed("""
big|small|tiny|cute|nice|little|huge|single|simple|lovely|shiny|glossy|pretty|funny|beautiful|real|good|large|old
typical|detailed|famous|perfect|clear|sharp|friendly|ordinary
""")
LINKS = _listed("""
on|against|upon|in|before|atop|set against|placed on|lying on|put on|within|inside|near|above|under|beside
sitting on|resting on|floating on|standing on|printed on|drawn on|laid on|across|on top of|framed by|next to|set on
pasted on|made for|to go on|in front of
""")
JOINTS = _listed("""
with|and|for|under|holding|that has|carrying|below
""")
PLACES = _listed("""
in|on|with|to|for|of|by|near|under|without|as|like|from|beside|inside|upon|via|per
""")
GROUNDS = _listed("""
background|wall|paper|sheet|screen|page|card|surface|board|field|area|space|cloth|fabric|carpet|floor|sky|panel|tile
frame|scene|backing|ground|tint|shade|blanket|table|plate|stage|banner|base|layer|box|fill|tone|world|rectangle
cover|cardboard|velvet|room|slide|bg|ink|expanse|block|mat|folder|plane|environment|light
""")
EVENLY = _listed("""
solid|bright|pure|clean|simple|empty|smooth|even|matte|soft|deep|clear|blank|single|wide|strong|pale|vivid|whole
full|dark|light|fresh|calm|warm|cold|rich|entire|completely|fully|very|totally|all
""")
ENDINGS = _listed("""
high quality|vector art|digital art|cartoon|4k|simple design|trending|detailed|glossy|3d|logo|symbol|hd|no text
no border|for my app|for a game|thanks|thank you|as soon as possible|if you can|very nice|in high resolution
clean lines|cute|for kids|64 pixels|isolated|crisp|professional|now|today|as an emoji|emoji|noto|best one
big and clear|well lit|studio light|for the web|stock picture|made with love
""")
FILLERS = _listed("""
the|a|of|and|to|for|with|that|this|one|only|just|really|very|then|again|here|there|so|as|is|was|its|our|your|their
about|into|also|well|still|even|each|every|between|during|without|first|last|new|another|other|same|than|too|time
year|people|way|day|life|part|work|week|company|system|number|point|home|story|fact|month|lot|right|study|job|word
business|issue|side|kind|service|friend|father|power|hour|game|line|end|member|law|city|community|name|president
team|minute|idea|kid|body|level|office|health|art|war|history|party|result|change|morning|reason|research|guy
moment|air|teacher|force|education|summer|garden|kitchen|village|market|bridge|letter|river|winter|spring|engine
metal|paper|cotton|gently|quickly|nearly|always|never|often|maybe|perhaps|quite|rather|almost|together|apart|inside
outside|below|beyond|against|toward|along|across|through|while|because|although|unless|whether|neither|either|both
several|many|few|less|looks|seems|stays|stands|sits|hangs|rests|floats|waits|lies|moves|turns|keeps|holds|takes
brings|leaves|meets|needs|want|need|see|give|find|tell|ask|feel|try|leave|call|keep|begin|help|talk|turn|start|might
hear|play|run|move|believe|hold|bring|happen|write|provide|sit|stand|lose|pay|meet|include|continue|set|learn|lead
understand|beautiful|careful|certain|common|complete|cultural|current|different|difficult|early|easy|economic|final
foreign|free|general|global|great|happy|hard|human|important|international|late|local|long|low|main|major|modern
natural|necessary|normal|official|personal|physical|popular|possible|private|public|recent|serious|short|similar
social|special|strong|texture|pattern|gradient|border|margin|corner|edge|canopy|curved|woven|glass|plastic|stone
wooden|silk|linen|leather|kit|pack|asset|stock|template|draft|brand|print|retro|classic|elegant|bold|rough
""")
ONSETS = _listed("""
b|br|bl|c|ch|cl|cr|d|dr|f|fl|fr|g|gl|gr|h|j|k|l|m|n|p|pl|pr|qu|r|s|sc|sh|sk|sl|sm|sn|sp|st|str|sw|t|th|tr|v|w|wh|y|z
""")
VOWELS = _listed("""
a|e|i|o|u|ai|ea|ee|ie|oa|oo|ou|ow|ay|y|ur|er|ar|or
""")
CODAS = _listed("""
b|ck|ct|d|ft|g|k|l|ll|ld|lf|m|mp|n|nd|ng|nk|nt|p|r|rd|rk|rn|rt|s|sh|sk|ss|st|t|th|tch|x|ve|ce|de|ge|le|me|ne|te
""")
