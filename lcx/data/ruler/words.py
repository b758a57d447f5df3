"""English words for keys and for lists: common ones, each in one list alone.

RULER takes its words from the package wonderwords, which has several times as many.
"""

from __future__ import annotations


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


ADJECTIVES = _words("""
able absent active actual agile airy alert alien amber ample ancient angry annual anxious apt arctic
arid astute atomic aware awful awkward balmy bare basic beige big bitter black bland blank bleak
blind blue blunt bold bony boring brave brief bright brisk broad broken bronze brown bulky bumpy
busy calm candid careful caring casual cautious central certain cheap cheerful chief chilly choppy
civic civil clean clear clever close cloudy clumsy coarse coastal cold colossal comic common compact
complex concise cordial cosmic costly cozy crafty crazy creamy crisp crooked crude cruel crunchy
curious curly current curved cute daily dainty damp daring dark dazzling deaf dear decent deep
defiant delicate dense dental devout digital dim direct dirty distant dizzy docile domestic double
drab drafty dreary dry dual due dull dusty eager early earnest eastern easy eerie elastic elder
elegant eligible eminent empty endless equal ethical even evident exact exotic expert extra faded
faint fair faithful famous fancy fast fatal feeble fertile festive fierce final fine firm fiscal
fishy fit flaky flat flawless flexible floral fluffy fluid foggy fond foolish formal fragile frail
frank free frequent fresh friendly frosty frozen frugal full funny furry fuzzy gaunt general gentle
genuine giant giddy gifted glad gleaming glossy golden good graceful grand grateful grave gray
greasy great green grim gritty gross grumpy guilty handsome handy happy hard harsh hasty healthy
hearty heavy helpful hidden hollow holy honest horrible hot huge humble humid hungry husky icy ideal
idle immense inner innocent intense ironic jagged jealous jolly joyful juicy keen kind known lame
large late lavish lazy lean legal lethal level light likely limp linear liquid literal little lively
local lofty lonely long loose loud lovely loyal lucky lunar magic main major manual marine massive
mature meager mellow merry messy mighty mild minor misty mobile modern modest moist moral muddy
musical mute narrow nasty native natural neat nervous neutral new nimble noble noisy normal northern
novel obscure odd old open orange organic outer pale patient perfect petty plain pleasant plump
polar polite poor popular precious pretty prime private prompt proper proud public pure purple
quaint quick quiet radiant rapid rare raw ready real recent red regal regular remote rich rigid ripe
robust rough round royal rude rural rustic sacred sad safe salty sandy scarce secret secure senior
serene serious severe shallow sharp shiny short shy silent silky silly silver simple sincere sleek
sleepy slim slippery slow small smart smooth sober social soft solar solemn solid sour southern
spare sparse spicy square stable stale steady steep sticky stiff strange strict strong sturdy subtle
sudden sunny super sweet swift tall tame tart tender tense thick thin thirsty tidy tight timid tiny
tired tough toxic tranquil tropical true upper urban urgent useful vague vain valid vast velvet
vibrant violet vital vivid warm wary weak wealthy weary western wet white whole wicked wide wild
wise witty wooden woolen worthy young zealous
""")
NOUNS = _words("""
accent acorn actor address adult advice affair agency album alcove alley almond alphabet altar
amount anchor angle ankle answer anthem antler apple apron arch arena armor arrow artist ash aspect
athlete atlas attic aunt author autumn avenue award axis baby bacon badge bag bakery balcony ball
bamboo banana band banjo bank banner barber bargain barley barn barrel basin basket bat battery
beach bead beaker beam bean bear beard beast beaver bed bee beetle belief bell belt bench berry
bicycle bird birth biscuit bishop blanket blizzard block blossom blouse board boat body bolt bone
bonnet book boot border bottle boulder boundary bow bowl box bracelet brain branch bread breeze
brick bridge broom brother brush bubble bucket buckle budget buffalo bugle builder bullet bureau bus
bush butcher butter button cabbage cabin cable cactus cage cake calendar calf camel camera camp
canal candle candy cannon canoe canvas canyon cape captain caravan carbon cargo carpet carriage
carrot cart castle cat cathedral cattle cave cedar ceiling cellar cement center century cereal chain
chair chalk champion channel chapel chapter charcoal chart cheek cheese cherry chess chest chicken
chimney chin chorus church cider cigar cinema circle circus citizen city clay clerk cliff climate
clinic clock closet cloth cloud clover clown coach coal coast coat cobra cocoa coconut coffee coin
collar college colony column comet compass concert copper coral cord cork corn corner costume
cottage cotton couch council country county cousin cow crab cradle crane crater crayon creek cricket
crocus crow crowd crown crystal cube cucumber cup cupboard curtain cushion customer cylinder daisy
dam danger daughter dawn debris debt deer degree dentist deputy desert desk dessert detail device
dew diagram diamond diary dictionary diet dinner director disc dish ditch doctor dog doll dolphin
dome donkey door dough dozen dragon drama drawer dress drum duck duke dust duty eagle ear earth echo
editor egg elbow election elephant elevator elm ember emerald emperor engine envelope error essay
estate evening event exam example exit eye fable fabric face factory falcon family farm farmer feast
feather fence fern ferry fiber fiction field fig finger fire fish flag flame flannel flask fleet
flock flood floor flour flower flute foam folder forehead forest fork fortune fossil fountain fox
fraction frame freckle freedom freight friend fringe frog front fruit fuel funnel furnace future
galaxy gallery gallon garage garden garlic garment gas gate gazelle gem geometry ghost gift ginger
giraffe girl glacier glass globe glove glue goat goblet goose gorilla gown grain grammar granite
grape grass gravel grocery grove guest guide guitar gulf gym habit hail hair hall hamlet hammer
hammock hand handle harbor harness harp harvest hat hawk hay hazel head heart heaven hedge helmet
hen herb herd hero heron highway hill hinge history hive hobby holiday holly honey hood hoof hook
horizon horn hornet horse hospital hotel hour house human hut hydrogen iceberg icicle idea igloo
image income infant ink inlet insect inventor iron island ivory ivy jacket jaguar jail jar jasmine
jaw jazz jelly jewel journal journey judge jug juice jungle jury kangaroo kennel kettle key keyboard
kidney kingdom kitchen kite kitten knee knife knight knot koala label labor lace ladder lady lagoon
lake lamb lamp language lantern laser laundry lava lawn lawyer leader leaf leather lecture legend
lemon lentil leopard lesson letter lettuce lever library lid lily lime lion lip list lizard loaf
lobster locket log logic lotus lumber lunch lung machine magnet maiden mail mammal manager mango
manor map maple marble market mask mast master mattress mayor meadow meal medal melody melon member
memory menu merchant mercy metal meteor method mile milk mill miner mint mirror mist mitten model
moment monarch money monkey monster month moon moose morning mosquito moss moth mother motor
mountain mouse mouth movie muffin mug mule muscle museum mushroom music mustard nail name napkin
nation neck necklace needle neighbor nephew nerve nest net nickel niece night noodle noon nose note
number nurse nut oak oasis oat object ocean octopus office officer oil ointment olive onion opera
orbit orchard orchid organ ostrich otter oven owl owner ox oxygen oyster package paddle page pail
painter palace palm pan panda panel panther papaya paper parade parcel parent park parlor parrot
party passage pasta path patio pattern peach peacock peanut pear pearl pebble pelican pen pencil
pendulum penguin people pepper perfume person phone photo phrase piano picnic picture pie pig pigeon
pillow pilot pine pipe pirate pizza planet plank plant plastic plate platform player plaza pleasure
plow plum pocket poem poet police pollen pond pony pool poppy porch portrait post potato pottery
powder prairie prayer present priest prince princess prison prize problem product profit project
proof prophet protein proverb pudding pumpkin pupil puppet puppy puzzle pyramid quail quality quarry
quarter quartz queen quilt quiz rabbit raccoon radio radish raft rail rain raisin ranch raven reason
receipt recipe record reef region reptile result ribbon rice riddle ring river road robin robot
rocket roof room rooster root rope rose ruby rug ruler sack saddle sail sailor salad salmon salt
sand sandal sapling satin sauce saucer sausage scale scarf scene school science scissors screen
screw sea seal season seat secretary seed senator servant shadow shape shark sheep shelf shell
shepherd sheriff ship shirt shoe shop shore shoulder shovel shower shrimp shrub sidewalk signal silk
singer sister skate sketch skirt skull sky slipper smoke snail snake snow soap society sock soda
sofa soil soldier son song soup space spade spark sparrow spider spinach spoon spring squash squid
squirrel stadium staircase stamp star station statue steam steel stem step stick stomach stone store
storm story stove stranger straw stream street string student sugar suit summer sun supper surface
surgeon swamp swan sweater sword symbol syrup system table tailor tank target taxi tea teacher team
temple tennis tent theater theory thimble thorn thread throat throne thumb thunder ticket tiger
timber toad toast tobacco toe tomato tongue tool tooth topic torch tortoise towel tower town toy
tractor trade train tray treasure tree tribe trombone trousers truck trumpet trunk truth tuba tulip
tunnel turkey turnip turtle tutor tuxedo twig uncle uniform union universe vacuum valley valve vase
vegetable vehicle veil vein vendor verb verse vessel veteran victory video village vine vinegar
violin virus visitor voice volcano volume voyage vulture wagon waist waiter wall wallet walnut
walrus wardrobe warehouse wasp water wave wax weapon weasel weather wedding weed week whale wheat
wheel whip whiskey widow wife wind window wine wing winter wire wizard wolf woman wood wool word
worker world worm wrist writer yacht yard yarn year yogurt youth zebra zipper zone zoo
""")
VERBS = _words("""
accept achieve acquire adapt adjust admire admit adopt advise agree allow amuse announce appear
applaud approve argue arrange arrive assemble assist assume attach attend avoid bake balance become
begin behave believe belong bend bless blink boil borrow bounce bring build burn bury buy carry
carve catch celebrate chase chew choose chop clap climb collect combine compare compete complain
compose confess confuse connect consider consist contain continue convince cook count cover crawl
create creep cross cry dance decide declare decorate defend deliver deny depend describe deserve
destroy detect develop differ dig disagree discover discuss divide dream drift drink drive drop earn
eat educate elect embrace emerge employ encourage enjoy enter entertain escape examine excite exist
expand expect explain explore extend fade fasten fetch float flow fly fold follow forget forgive
gather gaze giggle glide grab greet grow guard guess hang happen hatch heal hear hesitate hide hope
hover hum hurry ignore imagine improve include inform inspire instruct intend invent invite jog join
juggle jump kick kneel knit know laugh launch lead learn leave lend lift listen live mend mention
mix multiply nod notice obey obtain occur offer oppose order overcome pause perform permit persuade
ponder pour practice praise predict prefer prepare preserve pretend prevent proceed produce promise
protect prove provide pull punish push realize receive recognize reduce refuse rejoice relax release
rely remain remember remind remove repair repeat replace reply rescue resist respect retire return
reveal rinse roast roll run satisfy scatter scold scrub search select send separate serve settle sew
shake share shout shrink sigh sing sit slide smile sneeze solve speak spell spend spread squeeze
stand stare start stay stir stretch stroll struggle succeed suffer suggest supply support suppose
surprise surround survive suspect swallow swim swing teach tell thank think throw tickle touch
travel tremble trust try twist understand unite vanish visit wait wake walk wander warn wash watch
weave weep whisper whistle win wink wipe wish wonder work worry wrap write yawn yell yield
""")
WORDS = (*ADJECTIVES, *NOUNS, *VERBS)
